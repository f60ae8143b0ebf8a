package show

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/volume"
	wire "github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Operations lists them, newest first.
func Operations(st *state.State) []client.Operation {
	out := make([]client.Operation, 0, len(st.Operations))
	for _, o := range st.Operations {
		if !o.Asks() {
			out = append(out, Operation(st, o))
		}
	}
	slices.SortFunc(out, func(a, b client.Operation) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Operation gives one.
func Operation(st *state.State, o *state.Operation) client.Operation {
	out := client.Operation{ID: o.ID, Kind: o.Kind, Driver: o.Ref.Driver, Name: o.Ref.Name, Volume: string(o.Volume), Snapshot: o.Snapshot, Repository: o.Repository,
		Backup: o.Backup, SizeBytes: int64(o.Size), Phase: string(o.Phase), Node: string(o.Node), Because: o.Because, Outcome: o.Outcome, Code: o.Class, Error: o.Error,
		CreatedAt: o.CreatedAt, EndedAt: o.EndedAt}
	if o.Target != nil {
		out.Target, out.TargetUID = o.Target.Name, string(o.Target.UID)
	}
	if n := st.Nodes[o.Node]; n != nil {
		out.Hostname = n.Hostname
	}
	var p wire.Operation
	if len(o.Progress) > 0 && json.Unmarshal(o.Progress, &p) == nil {
		out.Doing, out.DoneBytes, out.TotalBytes = p.Doing, p.DoneBytes, p.TotalBytes
		if out.Because == "" {
			out.Because = p.Because
		}
	}
	var r wire.OperationResult
	if len(o.Result) > 0 && json.Unmarshal(o.Result, &r) == nil {
		out.Result = &r
	}
	return out
}

// usage says how full a volume is, where its node has said that it is nearly so.
func usage(st *state.State, v *state.Volume) *client.VolumeUsage {
	c := st.Claims[v.UID]
	if c == nil || st.Nodes[c.Node] == nil {
		return nil
	}
	f, ok := st.Nodes[c.Node].Full[v.UID]
	if !ok {
		return nil
	}
	return &client.VolumeUsage{Level: f.Level, SizeBytes: int64(f.Size), UsedBytes: int64(f.Used), AvailableBytes: int64(f.Available)}
}

// fullText is one line about a volume that is nearly full, "" for others.
func fullText(st *state.State, v *state.Volume) string {
	u := usage(st, v)
	if u == nil {
		return ""
	}
	return fmt.Sprintf("%s: %s of %s used; to make it larger: holdfast volume resize %s SIZE", map[string]string{"full": "full"}[u.Level]+map[string]string{"nearly-full": "nearly full"}[u.Level],
		bytesText(u.UsedBytes), bytesText(u.UsedBytes+u.AvailableBytes), v.Ref)
}

// operationsOf gives lines about what is being done to a volume.
func operationsOf(st *state.State, v *state.Volume) (lines []string) {
	for _, o := range Operations(st) {
		if o.Over() || o.Volume != string(v.UID) && o.TargetUID != string(v.UID) {
			continue
		}
		text := fmt.Sprintf("operation %s: %s is %s", o.ID, o.Kind, o.Phase)
		for _, more := range []string{o.Hostname, o.Doing, o.Because} {
			if more != "" {
				text += ", " + more
			}
		}
		lines = append(lines, text)
	}
	return lines
}

func bytesText(n int64) string {
	const gib = 1 << 30
	if n >= gib {
		return fmt.Sprintf("%.1f GiB", float64(n)/gib)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// wantedSize is what the app's definition now says of the volume's size, where that is more than the volume has; 0 else.
func wantedSize(st *state.State, v *state.Volume) volume.Bytes {
	a := st.Apps[v.App]
	if a == nil || v.Size == 0 {
		return 0
	}
	d := st.Def(a.ID, a.Version)
	if d == nil {
		return 0
	}
	ordinal := 0
	if i := st.Instances[v.Instance]; i != nil {
		ordinal = i.Ordinal
	}
	for _, m := range d.Spec.Volumes {
		if m.Kind == state.MountExternal && (volume.Ref{Driver: m.Driver, Name: volume.NameFor(m.Pattern, ordinal, m.Shared)}) == v.Ref && m.Size > v.Size {
			return m.Size
		}
	}
	return 0
}
