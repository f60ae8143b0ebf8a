package mesos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/framework/embedded/wire"
	"github.com/holdfast-io/holdfast/framework/mesos/task"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// TestReserveAsRecorded takes the offers that a real Mesos made, plans and encodes what Holdfast would ask for, and compares it with the calls
// that this Mesos accepted: launch with RESERVE and CREATE, relaunch, GROW_VOLUME, SHRINK_VOLUME, DESTROY with UNRESERVE.
func TestReserveAsRecorded(t *testing.T) {
	f, err := os.ReadFile("testdata/recorded-reserve.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	for line := range bytes.Lines(f) {
		var rec struct {
			Step   string
			Offers json.RawMessage
			Accept struct{ Accept map[string]any }
		}
		if err := json.Unmarshal(line, &rec); err != nil {
			t.Fatal(err)
		}
		steps++
		t.Run(rec.Step, func(t *testing.T) {
			got := simple(t, asked(t, rec.Step, offersOf(t, rec.Offers)))
			want := simple(t, rec.Accept.Accept["operations"])
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%s\nrecorded\n%s", indent(got), indent(want))
			}
		})
	}
	if steps != 5 {
		t.Errorf("%d steps", steps)
	}
}

func offersOf(t *testing.T, raw json.RawMessage) []*state.Offer {
	t.Helper()
	var e msched.Event
	if err := wire.FromJSON(raw, &e); err != nil {
		t.Fatal(err)
	}
	frame, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	ev, err := Decode(frame, at)
	if err != nil {
		t.Fatal(err)
	}
	return ev.(scheduler.Offers).Offers
}

// asked gives the operations of the ACCEPT that Holdfast would send.
func asked(t *testing.T, step string, offers []*state.Offer) any {
	t.Helper()
	spec := state.Spec{Cmd: "x", CPUs: 0.5, MemMB: 64, RequirePort: true, Ports: []state.Port{{Want: 31100, Protocol: "tcp"}},
		Volumes: []state.Mount{{Kind: state.MountPersistent, ContainerPath: "data", SizeMB: 128}}}
	owner := reserve.Owner{Cluster: "c", App: "/db", Instance: "db.0"}
	volumes := map[string]bool{"pv-db-0": true}
	own := reserve.Own(offers, owner, volumes)
	size := map[string]int64{"grow": 192, "shrink": 160}[step]
	if size == 0 {
		size = 128
	}
	w := &reserve.Wish{Owner: owner, Role: "stateful", Principal: "recorder", Spec: &spec,
		Volumes: []reserve.Volume{{ID: "pv-db-0", ContainerPath: "data", SizeMB: size, Type: "root", Created: step != "launch"}}}
	a := scheduler.Accept{Offers: []string{"O"}, Agent: "F-S0"}
	if step == "free" {
		a.Operations, _ = reserve.Free(own, owner, func(id string) bool { return volumes[id] })
	} else {
		plan, no := reserve.Launch(place.NewPool(offers), own, w, 0)
		if len(no) > 0 {
			t.Fatal(no)
		}
		a.Operations = plan.Ops
		if !plan.Later {
			a.Launches = []scheduler.Launch{{Instance: &state.Instance{ID: "db.0", App: "/db"}, Run: &state.Run{Task: "db.0.1-aaaaaa", Ports: plan.Ports},
				Def: &state.Def{App: "/db", Spec: spec}, Resources: plan.Task}}
		}
	}
	call, _, err := (&task.Encoder{}).Encode(a)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := wire.JSON(call)
	if err != nil {
		t.Fatal(err)
	}
	var out struct{ Accept map[string]any }
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out.Accept["operations"]
}

// simple leaves of operations what decides: their types in order, and their resources, sorted, those of one kind added up. Labels and ids are
// each framework's own; the recorded relaunch leaves its port alone.
func simple(t *testing.T, ops any) (out []string) {
	t.Helper()
	list, ok := ops.([]any)
	if !ok {
		t.Fatalf("operations %v", ops)
	}
	for _, o := range list {
		op := o.(map[string]any)
		text := op["type"].(string)
		for _, body := range []string{"reserve", "unreserve", "create", "destroy", "grow_volume", "shrink_volume"} {
			b, _ := op[body].(map[string]any)
			for _, field := range []string{"resources", "volumes"} {
				text += resourcesText(b[field])
			}
			for _, field := range []string{"volume", "addition"} {
				if b[field] != nil {
					text += " " + field + resourcesText([]any{b[field]})
				}
			}
			if b["subtract"] != nil {
				text += fmt.Sprint(" by ", b["subtract"])
			}
		}
		if l, _ := op["launch"].(map[string]any); l != nil {
			for _, ti := range l["task_infos"].([]any) {
				text += resourcesText(ti.(map[string]any)["resources"])
			}
			text = strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(s string) bool { return strings.Contains(s, `"name":"ports"`) }), "\n")
		}
		out = append(out, text)
	}
	return out
}

func resourcesText(list any) string {
	sums := map[string]float64{}
	rs, _ := list.([]any)
	for _, x := range rs {
		r := map[string]any{}
		for k, v := range x.(map[string]any) {
			r[k] = v
		}
		n := 0.0
		if s, ok := r["scalar"].(map[string]any); ok {
			n = s["value"].(float64)
			delete(r, "scalar")
		}
		var stack []any
		for _, v := range r["reservations"].([]any) {
			v := v.(map[string]any)
			stack = append(stack, map[string]any{"role": v["role"], "type": v["type"], "principal": v["principal"], "labelled": v["labels"] != nil})
		}
		r["reservations"] = stack
		key, _ := json.Marshal(r)
		sums[string(key)] += n
	}
	var out []string
	for k, n := range sums {
		out = append(out, fmt.Sprintf("\n  %g of %s", n, k))
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func indent(list []string) string { return strings.Join(list, "\n") }
