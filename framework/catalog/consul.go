package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Limits of one transaction. Consul takes 64 operations (128 since 1.13) and 512 KiB.
const (
	maxOps   = 64
	maxBytes = 256 << 10
)

// listers is how many nodes are listed side by side.
const listers = 8

// consul makes the calls. It is safe for concurrent use.
type consul struct {
	client               *api.Client
	cluster              string
	datacenter           string // for messages
	namespace, partition string
	limit                time.Duration // of one call
	calls                atomic.Uint64
	session              string // that holds the locks of primaries, "" for none; of Run's goroutine
}

// refusal says what Consul said of single operations of a transaction, none of which was done: by their index.
type refusal map[int]string

func (r refusal) Error() string {
	for _, what := range r {
		return what
	}
	return "refused"
}

// read reads every node that is marked as the cluster's with all that is on it: two calls, and one for each node.
func (c *consul) read(ctx context.Context) (*Observed, error) {
	var nodes []*api.Node
	mark := map[string]string{metaCluster: c.cluster}
	err := c.query(ctx, "list nodes", func(q *api.QueryOptions) (meta *api.QueryMeta, err error) {
		q.NodeMeta = mark
		nodes, meta, err = c.client.Catalog().Nodes(q)
		return meta, err
	})
	if err != nil {
		return nil, err
	}
	var checks api.HealthChecks
	if len(nodes) > 0 {
		err = c.query(ctx, "list checks", func(q *api.QueryOptions) (meta *api.QueryMeta, err error) {
			q.NodeMeta = mark
			checks, meta, err = c.client.Health().State(api.HealthAny, q)
			return meta, err
		})
		if err != nil {
			return nil, err
		}
	}
	lists, err := c.lists(ctx, nodes)
	if err != nil {
		return nil, err
	}
	return observe(nodes, lists, checks), nil
}

// lists reads the services of each node, several nodes at a time.
func (c *consul) lists(ctx context.Context, nodes []*api.Node) ([]*api.CatalogNodeServiceList, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := make([]*api.CatalogNodeServiceList, len(nodes))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(listers, len(nodes)) {
		wg.Go(func() {
			for n := int(next.Add(1)) - 1; n < len(nodes) && ctx.Err() == nil; n = int(next.Add(1)) - 1 {
				err := c.query(ctx, "list services of node "+nodes[n].Node, func(q *api.QueryOptions) (meta *api.QueryMeta, err error) {
					out[n], meta, err = c.client.Catalog().NodeServiceList(nodes[n].Node, q)
					return meta, err
				})
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return out, nil
}

// observe puts the answers together.
func observe(nodes []*api.Node, lists []*api.CatalogNodeServiceList, checks api.HealthChecks) *Observed {
	o := &Observed{Nodes: make(map[string]*Node, len(nodes)), Services: map[Key]*Entry{}}
	for n, node := range nodes {
		if lists[n] == nil || lists[n].Node == nil {
			continue // gone meanwhile
		}
		o.Nodes[node.Node] = &Node{Address: node.Address, Index: node.ModifyIndex}
		for _, s := range lists[n].Services {
			k := Key{node.Node, s.ID}
			o.Services[k] = &Entry{
				Service: Service{Key: k, Name: s.Service, Address: s.Address, Port: s.Port, Tags: s.Tags, Meta: s.Meta},
				Odd:     s.Weights != (api.AgentWeights{Passing: 1, Warning: 1}) || s.EnableTagOverride || s.Kind != "",
			}
		}
	}
	for _, h := range checks {
		if n := o.Nodes[h.Node]; n != nil && h.ServiceID == "" {
			n.Checks++
		}
		if e := o.Services[Key{h.Node, h.ServiceID}]; e != nil && h.CheckID == checkID(h.ServiceID) {
			e.Status = h.Status
		}
	}
	return o
}

func checkID(service string) string { return service + "-health" }

// belongs asks whose a node entry is: free says that it is nobody's, or has lost its mark though its name is ours, and may be taken.
func (c *consul) belongs(ctx context.Context, name string) (free bool, err error) {
	err = c.query(ctx, "look at node "+name, func(q *api.QueryOptions) (*api.QueryMeta, error) {
		n, meta, err := c.client.Catalog().Node(name, q)
		if err == nil {
			free = n == nil || n.Node == nil || n.Node.Meta[metaCluster] == "" || n.Node.Meta[metaCluster] == c.cluster
		}
		return meta, err
	})
	return free, err
}

// query makes one read. An answer that the token's rights have thinned out is an error: what is missing in it would be taken for gone.
func (c *consul) query(ctx context.Context, what string, do func(*api.QueryOptions) (*api.QueryMeta, error)) error {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	c.calls.Add(1)
	q := &api.QueryOptions{RequireConsistent: true}
	meta, err := do(q.WithContext(ctx))
	if err != nil {
		return c.sort(ctx, err, what)
	}
	if meta != nil && meta.ResultsFilteredByACLs {
		return fault.New(fault.Denied, "%s: the token may not read all of Holdfast's entries: its policy needs node and service rights (docs/consul.md)", what)
	}
	return nil
}

// txn makes one transaction; refusal says that it was not done because of some of its operations.
func (c *consul) txn(ctx context.Context, ops api.TxnOps) error {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	c.calls.Add(1)
	_, err := c.client.Raw().Write("/v1/txn", ops, nil, new(api.WriteOptions).WithContext(ctx))
	var status api.StatusError
	if errors.As(err, &status) && status.Code == http.StatusConflict {
		var answer api.TxnResponse
		if json.Unmarshal([]byte(status.Body), &answer) == nil && len(answer.Errors) > 0 {
			r := refusal{}
			for _, e := range answer.Errors {
				r[e.OpIndex] = e.What
			}
			return r
		}
	}
	return c.sort(ctx, err, "write services")
}

// sort gives an error its class, and words that tell what to do about it.
func (c *consul) sort(ctx context.Context, err error, what string) error {
	if err == nil {
		return nil
	}
	var status api.StatusError
	switch {
	case errors.As(err, &status):
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fault.Wrap(fault.Unavailable, err, "%s: no answer from Consul within %v", what, c.limit)
	default:
		return fault.Wrap(fault.Unavailable, err, "%s: Consul cannot be reached", what)
	}
	body := string(bytes.TrimSpace([]byte(cut(status.Body, 300))))
	switch {
	case bytes.Contains([]byte(body), []byte("No path to datacenter")):
		return fault.New(fault.Invalid, "%s: Consul knows no datacenter %q", what, c.datacenter)
	case status.Code == http.StatusForbidden || status.Code == http.StatusUnauthorized:
		return fault.New(fault.Denied, "%s: Consul refuses the token (%d): %s; docs/consul.md lists the rights needed", what, status.Code, body)
	case status.Code == http.StatusTooManyRequests:
		return fault.New(fault.Unavailable, "%s: Consul asks to slow down (429): %s", what, body)
	case status.Code >= 400 && status.Code < 500:
		return fault.New(fault.Invalid, "%s: Consul does not accept it (%d): %s", what, status.Code, body)
	}
	return fault.New(fault.Unavailable, "%s: Consul answers %d: %s", what, status.Code, body)
}

// The operations of transactions.

func (c *consul) nodeOp(name, address string, there bool) *api.TxnOp {
	op := &api.NodeTxnOp{Verb: api.NodeCAS, Node: api.Node{Node: name, Address: address, Partition: c.partition, // with index 0: only if there is none
		Meta: map[string]string{metaCluster: c.cluster, "external-node": "true", "external-probe": "false"}}}
	if there {
		op.Verb = api.NodeSet
	}
	return &api.TxnOp{Node: op}
}

func (c *consul) dropNodeOp(name string, index uint64) *api.TxnOp {
	return &api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeDeleteCAS, Node: api.Node{Node: name, Partition: c.partition, ModifyIndex: index}}}
}

func (c *consul) serviceOps(ch Change) api.TxnOps {
	s := ch.Put
	if s == nil {
		return api.TxnOps{{Service: &api.ServiceTxnOp{Verb: api.ServiceDelete, Node: ch.Node,
			Service: api.AgentService{ID: ch.ID, Service: ch.Name, Namespace: c.namespace, Partition: c.partition}}}}
	}
	return append(c.lockOps(s), api.TxnOps{
		{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: s.Node, Service: api.AgentService{ID: s.ID, Service: s.Name, Address: s.Address, Port: s.Port,
			Tags: s.Tags, Meta: s.Meta, Weights: api.AgentWeights{Passing: 1, Warning: 1}, Namespace: c.namespace, Partition: c.partition}}},
		{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: api.HealthCheck{Node: s.Node, CheckID: checkID(s.ID), Name: "Mesos task health", Status: s.Status,
			Output: output[s.Status], ServiceID: s.ID, Namespace: c.namespace, Partition: c.partition}}},
	}...)
}

// output is what a check says beside its status.
var output = map[string]string{
	"passing":  "the task runs, and no health check of Mesos fails",
	"warning":  "the task runs; no health check of Mesos has a result yet",
	"critical": "a health check of Mesos fails",
}

// size bounds the bytes of a change in a transaction.
func size(ch Change) int {
	n := 512
	if s := ch.Put; s != nil {
		if s.lock != nil {
			n += 512 + 2*len(s.lock.value)
		}
		n += 2*len(s.ID) + len(s.Name) + len(s.Address) + 2*len(s.Node) + 512
		for _, tag := range s.Tags {
			n += 6*len(tag) + 3
		}
		for k, v := range s.Meta {
			n += len(k) + 6*len(v) + 6
		}
	}
	return n
}
