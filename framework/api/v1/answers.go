package v1

import (
	"regexp"

	node "github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// wordShape is that of snapshot, repository and backup names, as the nodes check them (isolator/operation).
var wordShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// checkWords refuses names that every node would refuse, before anything is recorded.
func checkWords(o state.Operation) error {
	for _, f := range []struct{ field, value string }{{"snapshot", o.Snapshot}, {"repository", o.Repository}, {"backup", o.Backup}} {
		if f.value != "" && !wordShape.MatchString(f.value) {
			return invalid(f.field, "must be 1 to 128 letters, digits, '_', '.' and '-', the first a letter or digit; this has %d bytes: %.60q", len(f.value), f.value)
		}
	}
	return nil
}

// answer is what a question's result looks like: a list that is empty is an empty list.
func answer(kind string, r *node.OperationResult) any {
	if r == nil {
		r = &node.OperationResult{}
	}
	switch {
	case kind == state.OpSnapshots && len(r.Snapshots) == 0:
		return map[string]any{"snapshots": []node.Snapshot{}}
	case kind == state.OpBackups && len(r.Backups) == 0:
		return map[string]any{"backups": []node.Backup{}}
	case kind == state.OpBin && len(r.Bin) == 0:
		return map[string]any{"bin": []node.RemovedVolume{}}
	}
	return r
}
