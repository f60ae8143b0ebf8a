package wire

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gogo/protobuf/proto"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
)

func TestEnumsAreRegistered(t *testing.T) {
	for _, name := range []string{"mesos.Value_Type", "mesos.scheduler.Call_Type", "mesos.scheduler.Event_Type", "mesos.TaskState", "mesos.master.Call_Type"} {
		if len(proto.EnumValueMap(name)) == 0 {
			t.Errorf("enum %s is not registered", name)
		}
	}
}

func TestRefusalsOfJSON(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"{not json", "Failed to parse body into JSON: syntax error at line 1 near: not json"},
		{`{"type":"SUBSCRIBE","subscribe":{"framework_info":{}}}`,
			"Failed to convert JSON into Call protobuf: Missing required fields: subscribe.framework_info.user, subscribe.framework_info.name"},
		{`[]`, "Failed to convert JSON into Call protobuf: Expecting a JSON object"},
		{`{"type":7.5}`, "Failed to convert JSON into Call protobuf: Not expecting a JSON number for field 'type'"},
		{`{"framework_id":"x"}`, "Failed to convert JSON into Call protobuf: Not expecting a JSON string for field 'framework_id'"},
	} {
		got := Decode(codecs.MediaTypeJSON, []byte(c.body), &scheduler.Call{})
		if got == nil || got.Text != c.want || got.Status != 400 {
			t.Errorf("%s: got %v, want %s", c.body, got, c.want)
		}
	}
	var call scheduler.Call
	if err := Decode(codecs.MediaTypeJSON, []byte(`{"type":"NO_SUCH_CALL","framework_id":{"value":"f"}}`), &call); err != nil || call.Type != scheduler.Call_UNKNOWN {
		t.Errorf("unknown enum value: %v %v", err, call.Type)
	}
}

// TestRoundTrip decodes every recorded call and event, encodes it and compares, with JSON as well as with protobuf in between.
func TestRoundTrip(t *testing.T) {
	dir := os.Getenv("HOLDFAST_MESOS_WIRE")
	if dir == "" {
		dir = "../../../../shared/mesos-wire"
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if len(files) == 0 {
		t.Skip("no recordings at " + dir + " (set HOLDFAST_MESOS_WIRE)")
	}
	n := 0
	for _, f := range files {
		fh, err := os.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(fh)
		sc.Buffer(nil, 8<<20)
		for sc.Scan() {
			var l struct {
				Kind, Path     string
				Status         int
				Request, Event json.RawMessage
			}
			if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
				t.Fatal(err)
			}
			switch {
			case l.Event != nil:
				checkRound(t, l.Event, &scheduler.Event{}, &scheduler.Event{})
			case l.Kind == "operator":
				checkRound(t, l.Request, &master.Call{}, &master.Call{})
			case l.Kind == "call" && l.Status/100 == 2, l.Kind == "subscribe" && l.Status == 200:
				checkRound(t, l.Request, &scheduler.Call{}, &scheduler.Call{})
			default:
				continue
			}
			n++
		}
		fh.Close()
	}
	t.Logf("%d messages", n)
}

func checkRound(t *testing.T, raw []byte, a, b proto.Message) {
	t.Helper()
	if err := FromJSON(raw, a); err != nil {
		t.Errorf("%v: %s", err, raw)
		return
	}
	pb, err := proto.Marshal(a)
	if err != nil {
		t.Errorf("%v: %s", err, raw)
		return
	}
	if err := proto.Unmarshal(pb, b); err != nil {
		t.Error(err)
		return
	}
	js, err := JSON(b)
	if err != nil {
		t.Error(err)
		return
	}
	if got, want := canonical(t, js), canonical(t, raw); got != want {
		t.Errorf("round trip\n got %s\nwant %s", got, want)
	}
}

// canonical forgets empty lists and objects, which protobuf cannot tell from absent ones, and the one capability mesos-go does not know.
func canonical(t *testing.T, raw []byte) string {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	out, _ := json.Marshal(prune(v))
	return string(out)
}

func prune(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			if l, ok := e.([]any); ok && len(l) == 0 {
				delete(x, k)
				continue
			}
			x[k] = prune(e)
			if k == "max_grace_period" {
				delete(x, k) // recorded with a field that Mesos itself ignored
			}
		}
	case []any:
		var out []any
		for _, e := range x {
			if m, ok := e.(map[string]any); ok && (m["type"] == "QUOTA_V2" || m["type"] == "UNKNOWN" || len(m) == 0) {
				continue
			}
			out = append(out, prune(e))
		}
		return out
	}
	return v
}

func FuzzFromJSON(f *testing.F) {
	f.Add([]byte(`{"type":"ACCEPT","accept":{"offer_ids":[{"value":"x"}]}}`))
	f.Add([]byte(`{"type":1e400}`))
	f.Add([]byte(`{"accept":{"operations":[{"launch":{"task_infos":[{"limits":{"a":{"value":1}}}]}}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c scheduler.Call
		if FromJSON(b, &c) == nil {
			if _, err := JSON(&c); err != nil && !strings.Contains(err.Error(), "no JSON form") {
				t.Fatal(err)
			}
		}
	})
}
