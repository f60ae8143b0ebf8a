package difference

import (
	"encoding/json"
	"testing"
)

func TestOf(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{`{"cmd":"a","cpus":1}`, `{"cpus":1.0,"cmd":"a"}`, `null`},
		{`{"cmd":"a"}`, `{"args":["b"]}`, `[{"path":"/args","to":["b"]},{"path":"/cmd","from":"a"}]`},
		{``, `{"cmd":"a"}`, `[{"path":"/cmd","to":"a"}]`},
		{`{"id":"/a","env":{"A":"1","B":"2"}}`, `{"env":{"A":"1","B":"3","C/D":"4"}}`, `[{"path":"/env/B","from":"2","to":"3"},{"path":"/env/C~1D","to":"4"}]`},
		{`{"container":{"volumes":[{"external":{"size":1}},{"x":1}]}}`, `{"container":{"volumes":[{"external":{"size":2}}]}}`,
			`[{"path":"/container/volumes(0)/external/size","from":1,"to":2},{"path":"/container/volumes(1)","from":{"x":1}}]`},
		{`{"unreachableStrategy":"disabled"}`, `{"unreachableStrategy":{"expungeAfterSeconds": 0}}`, `[{"path":"/unreachableStrategy","from":"disabled","to":{"expungeAfterSeconds":0}}]`},
		{`{"labels":{}}`, `{"labels":{"a":null}}`, `[{"path":"/labels/a","to":null}]`},
	} {
		got, err := json.Marshal(Of(json.RawMessage(c.from), json.RawMessage(c.to), "id"))
		if err != nil || string(got) != c.want {
			t.Errorf("%s -> %s:\ngot  %s %v\nwant %s", c.from, c.to, got, err, c.want)
		}
	}
}
