package scheduler

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Commands of scenarios for operations:
//
//	operate KIND NAME [snapshot=S] [target=NAME] [size=GIB] [repository=R] [backup=B]   NAME none: the driver alone
//	answered [class=C] [size=GIB] | operationgone | progressed | canceloperation       of the operation that was asked for last
func (s *scenario) operationEvents(cmd string, a args) (Event, error) {
	if cmd == "operate" {
		o := state.Operation{Kind: a.list[0], Ref: volume.Ref{Driver: "pool"}, Snapshot: a.named["snapshot"], Repository: a.named["repository"], Backup: a.named["backup"],
			Size: volume.Bytes(a.num("size", 0)) * volume.GiB}
		if v := s.byName(a.list[1]); v != nil {
			o.Volume = v.UID
		} else if a.list[1] != "none" {
			o.Volume = "unknown"
		}
		if t := a.named["target"]; t != "" {
			o.Target = &state.OperationTarget{Name: t}
		}
		return StartOperation{Operation: o}, nil
	}
	var last *state.Operation
	for _, id := range sortedKeys(s.s.Operations) {
		if o := s.s.Operations[id]; !o.Over() && (last == nil || o.CreatedAt.After(last.CreatedAt)) {
			last = o
		}
	}
	if last == nil {
		return nil, fmt.Errorf("no operation is under way")
	}
	switch cmd {
	case "canceloperation":
		return CancelOperation{ID: last.ID}, nil
	case "progressed":
		return OperationProgress{Op: last.ID, Progress: json.RawMessage(`{"doneBytes":5}`)}, nil
	}
	if last.Node == "" {
		return nil, fmt.Errorf("no node was asked")
	}
	r := RequestResult{Op: last.ID, Node: last.Node, Scope: "cluster", OK: true, Outcome: "done", Size: volume.Bytes(a.num("size", 0)) * volume.GiB}
	switch {
	case cmd == "operationgone":
		r.OK, r.Gone = false, true
	case a.named["class"] != "":
		r.OK, r.Class, r.Error, r.Outcome = false, a.named["class"], "the driver says no", ""
	}
	return r, nil
}

func (s *scenario) volumeOperation(o *state.Operation) string {
	text := fmt.Sprintf("operation %s: %s %s %s", o.ID, o.Kind, o.Ref, o.Phase)
	if o.Node != "" {
		text += " on " + string(o.Node)
	}
	if o.Target != nil {
		text += fmt.Sprintf(" makes %s uid=%s", o.Target.Name, o.Target.UID)
	}
	for _, w := range []string{o.Because, o.Error, string(o.Progress)} {
		if w != "" {
			text += fmt.Sprintf(" (%s)", strings.TrimSpace(w))
		}
	}
	return text + " wake=" + s.at(o.WakeAt)
}
