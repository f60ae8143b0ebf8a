package lease

import (
	"context"
	"errors"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// PutRequest asks a node for something. The same Op again is a success that returns the request as it stands, finished
// perhaps; Conflict when that Op was another request.
func (a *Authority) PutRequest(ctx context.Context, node string, r Request) (RequestVersion, error) {
	if err := errors.Join(checkID("node uid", node), checkID("request", r.Op), checkID("volume uid", r.VolumeUID)); err != nil {
		return RequestVersion{}, err
	}
	r.V, r.State, r.Created = recordVersion, RequestPending, a.opts.Now()
	r.Outcome, r.Class, r.Error, r.Done = "", "", "", nil
	var out RequestVersion
	err := a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		now, err := a.request(ctx, node, r.Op)
		switch {
		case err == nil && (now.Kind != r.Kind || now.VolumeUID != r.VolumeUID || now.Ref != r.Ref):
			return nil, nil, final(fault.New(fault.Conflict, "it is another one: %s of volume %s", now.Kind, now.Ref))
		case err == nil:
			out = now
			return nil, nil, nil
		case !fault.Is(err, fault.NotFound):
			return nil, nil, err
		}
		return []Op{{Kind: OpPut, Key: requestKey(node, r.Op), Value: encode(r)}},
			func(e []Entry) { out = RequestVersion{r, e[0].Version} }, nil
	})
	return out, fault.Op(err, "request %s of node %s", r.Op, node)
}

func (a *Authority) request(ctx context.Context, node, op string) (RequestVersion, error) {
	e, err := a.get(ctx, requestKey(node, op))
	if err != nil {
		return RequestVersion{}, err
	}
	return decodeRequest(e)
}

// Requests reads the requests to one node. Where some cannot be read the error is a *BadRecords beside the others.
func (a *Authority) Requests(ctx context.Context, node string) ([]RequestVersion, error) {
	if err := checkID("node uid", node); err != nil {
		return nil, err
	}
	entries, err := a.list(ctx, requestPrefix(node))
	if err != nil {
		return nil, fault.Op(err, "read the requests to node %s", node)
	}
	return decodeAll(entries, decodeRequest)
}

// FinishRequest writes a request's outcome, or the failure when that is not nil. An outcome that is Unknown is none (Invalid):
// the request stays pending until the node has found out. Finished already is a success; NotFound when the framework has
// removed it.
func (a *Authority) FinishRequest(ctx context.Context, node string, rv RequestVersion, outcome string, failure error) error {
	if fault.Is(failure, fault.Unknown) {
		return fault.Wrap(fault.Invalid, failure, "finish request %s: the outcome is not known yet", rv.Op)
	}
	if err := errors.Join(checkID("node uid", node), checkID("request", rv.Op)); err != nil {
		return err
	}
	err := a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		now, err := a.request(ctx, node, rv.Op)
		if err != nil || now.State != RequestPending {
			return nil, nil, err
		}
		next, at := now.Request, a.opts.Now()
		next.State, next.Outcome, next.Done = RequestDone, outcome, &at
		if failure != nil {
			next.State, next.Class, next.Error = RequestFailed, string(fault.ClassOf(failure)), failure.Error()
		}
		return []Op{{Kind: OpPut, Key: requestKey(node, rv.Op), Expect: now.Version, Value: encode(next)}}, nil, nil
	})
	return fault.Op(err, "finish request %s", rv.Op)
}

// DeleteRequest removes a request. Gone already is a success.
func (a *Authority) DeleteRequest(ctx context.Context, node, op string) error {
	if err := errors.Join(checkID("node uid", node), checkID("request", op)); err != nil {
		return err
	}
	err := a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		now, err := a.get(ctx, requestKey(node, op))
		if fault.Is(err, fault.NotFound) {
			return nil, nil, nil
		}
		return []Op{{Kind: OpDelete, Key: requestKey(node, op), Expect: now.Version}}, nil, err
	})
	return fault.Op(err, "remove request %s", op)
}

// AllRequests reads the requests to all nodes, by node uid. Where some cannot be read the error is a *BadRecords beside the
// others.
func (a *Authority) AllRequests(ctx context.Context) (map[string][]RequestVersion, error) {
	entries, err := a.list(ctx, PrefixRequests)
	if err != nil {
		return nil, fault.Op(err, "read the requests")
	}
	byNode := make(map[string][]RequestVersion)
	_, bad := decodeAll(entries, func(e Entry) (RequestVersion, error) {
		rv, err := decodeRequest(e)
		if node, _, ok := strings.Cut(strings.TrimPrefix(e.Key, PrefixRequests), "/"); ok && err == nil {
			byNode[node] = append(byNode[node], rv)
		}
		return rv, err
	})
	return byNode, bad
}
