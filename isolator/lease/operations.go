package lease

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// maxResult bounds what a node writes of an operation into its record.
const maxResult = 64 << 10

// ProgressRequest writes how far a pending operation is. NotFound when the framework has removed the request: nobody wants it any more.
func (a *Authority) ProgressRequest(ctx context.Context, node, op string, progress json.RawMessage) error {
	return a.changeRequest(ctx, node, op, func(r *Request) { r.Progress = progress })
}

// FinishOperation is FinishRequest with the result of an operation.
func (a *Authority) FinishOperation(ctx context.Context, node string, rv RequestVersion, outcome string, result json.RawMessage, failure error) error {
	if fault.Is(failure, fault.Unknown) {
		return fault.Wrap(fault.Invalid, failure, "finish request %s: the outcome is not known yet", rv.Op)
	}
	if len(result) > maxResult && failure == nil {
		failure = fault.New(fault.Invalid, "the answer of %d bytes is larger than a record of %d may be: ask for less", len(result), maxResult)
	}
	return a.changeRequest(ctx, node, rv.Op, func(r *Request) {
		at := a.opts.Now()
		r.State, r.Outcome, r.Result, r.Progress, r.Done = RequestDone, outcome, result, nil, &at
		if failure != nil {
			r.State, r.Result, r.Class, r.Error = RequestFailed, nil, string(fault.ClassOf(failure)), failure.Error()
		}
	})
}

// changeRequest changes a pending request. One that is finished is left as it is.
func (a *Authority) changeRequest(ctx context.Context, node, op string, change func(*Request)) error {
	if err := errors.Join(checkID("node uid", node), checkID("request", op)); err != nil {
		return err
	}
	err := a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		now, err := a.request(ctx, node, op)
		if err != nil || now.State != RequestPending {
			return nil, nil, err
		}
		next := now.Request
		change(&next)
		return []Op{{Kind: OpPut, Key: requestKey(node, op), Expect: now.Version, Value: encode(next)}}, nil, nil
	})
	return fault.Op(err, "request %s", op)
}
