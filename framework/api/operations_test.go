package api_test

import (
	"encoding/json"

	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// nodeAnswers is what a node says to an operation.
func nodeAnswers(o *state.Operation) scheduler.RequestResult {
	r := scheduler.RequestResult{Op: o.ID, Node: o.Node, OK: true, Scope: "cluster", Outcome: "done"}
	switch o.Kind {
	case state.OpSnapshots:
		r.Result = json.RawMessage(`{"snapshots":[{"driver":"pool","volume":"v","name":"s1","ready":true}]}`)
	case state.OpUsage:
		r.Result = json.RawMessage(`{"usage":{"sizeBytes":100,"usedBytes":40,"availableBytes":60}}`)
	case state.OpResize:
		r.Outcome, r.Size, r.Result = "resized", o.Size, json.RawMessage(`{"outcome":"resized","growth":{"sizeBytes":5368709120}}`)
	case state.OpCheck:
		r.OK, r.Class, r.Error, r.Outcome = false, "conflict", "check volume pool/v: it is mounted at /mnt/v; stop what uses it first", ""
	}
	return r
}
