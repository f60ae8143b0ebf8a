package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Records of a cluster of 5,000 apps with 100,000 instances stay below 100 KiB: of each kind the largest that such a cluster makes. Only a single deployment that changes more than
// 4,000 apps at once is larger: 119 KiB for 5,000.
func TestRecordsStaySmall(t *testing.T) {
	at := time.Date(2026, 5, 4, 3, 2, 1, 123456789, time.UTC)
	version := func(i int) string {
		return at.Add(time.Duration(i*7919) * time.Millisecond).Format("2006-01-02T15:04:05.000Z")
	}
	app := func(i int) state.AppID { return state.AppID(fmt.Sprintf("/prod/team-%d/service-%d", i%37, i)) }
	d := &state.Deployment{ID: "0f0e0d0c-0000-4000-8000-00000000000a", Version: version(0), CreatedAt: at}
	var acts []state.DeploymentAction
	for i := range 4000 {
		d.Apps = append(d.Apps, app(i))
		acts = append(acts, state.DeploymentAction{Action: "RestartApplication", App: app(i)})
		d.Changes = append(d.Changes, state.AppChange{App: app(i), FromVersion: version(i), FromInstances: 20, ToVersion: version(0), ToInstances: 20})
	}
	d.Steps = []state.DeploymentStep{{Actions: acts}}
	a := &state.App{ID: app(1), Version: version(1), Instances: 100000, Rev: 1}
	for i := range 200 {
		a.Alike = append(a.Alike, version(i))
	}
	for i := range 5000 { // of its instances every twentieth was killed and scaled away by name
		a.Skip = append(a.Skip, i*20)
	}
	env := map[string]string{}
	for i := range 1000 {
		env[fmt.Sprintf("SETTING_%d", i)] = strings.Repeat("value of a long setting ", 4)
	}
	source, err := json.Marshal(map[string]any{"id": app(1), "env": env})
	if err != nil {
		t.Fatal(err)
	}
	def := &state.Def{App: app(1), Version: version(1), Spec: state.Spec{Env: env}, Source: source}
	hold := &state.Hold{Brake: &state.Brake{Vanished: 1000, Total: 5000}}
	for i := range 1000 {
		hold.Brake.Nodes = append(hold.Brake.Nodes, fmt.Sprintf("agent-%d.rack-%d.example.com", i, i%40))
	}
	const limit = 100 << 10
	for _, w := range []state.Write{{Kind: state.KindDeployment, ID: string(d.ID), Value: d}, {Kind: state.KindApp, ID: string(a.ID), Value: a},
		{Kind: state.KindDef, ID: state.DefID(def.App, def.Version), Value: def}, {Kind: state.KindHold, Value: hold}} {
		raw, err := encode(w)
		if err != nil {
			t.Error(err)
			continue
		}
		plain, _ := json.Marshal(w.Value)
		t.Logf("%s: %d bytes, stored as %d", w.Kind, len(plain), len(raw))
		if len(raw) > limit {
			t.Errorf("record of %s is %d bytes", w.Kind, len(raw))
		}
		key, err := keyOf(w.Kind, w.ID)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decode(key, raw)
		if err != nil || !reflect.DeepEqual(back.Value, w.Value) {
			t.Errorf("%s is another after reading: %v", w.Kind, err)
		}
	}
}

// A packed record that was damaged, or is of another kind than it says, is named and nothing more.
func TestPackedDamage(t *testing.T) {
	def := &state.Def{App: "/a", Version: "v", Source: json.RawMessage(`"` + strings.Repeat("x", packFrom) + `"`)}
	raw, err := encode(state.Write{Kind: state.KindDef, ID: "/a v", Value: def})
	if err != nil || len(raw) > 2000 {
		t.Fatal(err, len(raw))
	}
	key, _ := keyOf(state.KindDef, "/a v")
	for name, bad := range map[string][]byte{
		"another kind": bytes.Replace(raw, []byte(`"kind":"def"`), []byte(`"kind":"app"`), 1), "newer": bytes.Replace(raw, []byte(`"v":1`), []byte(`"v":2`), 1),
		"no base64": bytes.Replace(raw, []byte(`"gz":"`), []byte(`"gz":"!`), 1), "empty": []byte(`{"v":1,"kind":"def","gz":""}`), "cut": append(bytes.Clone(raw[:len(raw)/2]), []byte(`"}`)...),
	} {
		if bytes.Equal(bad, raw) {
			t.Fatalf("%s: nothing was changed: %.80s", name, raw)
		}
		if _, err := decode(key, bad); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	// What does not get smaller is stored as it is.
	noise := make([]byte, packFrom)
	for i := range noise {
		noise[i] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[rand.IntN(64)]
	}
	def.Source = json.RawMessage(`"` + string(noise) + `"`)
	raw, err = encode(state.Write{Kind: state.KindDef, ID: "/a v", Value: def})
	if err != nil {
		t.Fatal(err)
	}
	if w, err := decode(key, raw); err != nil || !bytes.Equal(w.Value.(*state.Def).Source, def.Source) {
		t.Error(err)
	}
}
