package server

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/isolator/client"
)

// What comes through the socket is one JSON object with nothing that is not known, or it is refused.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{`{"driver":"pool","name":"v"}`, `{"driver":"pool","name":"v"} {}`, `{"drivers":1}`, `null`, `[]`, ``, `{"options":{"a":"b","a":"c"}}`, `{"name":"\ud800"}`, `{"owner":"a b"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var in client.MountRequest
		if err := read(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/mount", strings.NewReader(body)), &in); err != nil {
			return
		}
		if len(body) > client.MaxBody {
			t.Errorf("%d bytes are taken", len(body))
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(body), &fields); err != nil {
			t.Errorf("%q is taken: %v", body, err)
		}
		if checkOwner(in.Owner) == nil && strings.ContainsAny(in.Owner, " \n\x00\x7f") {
			t.Errorf("owner %q is taken", in.Owner)
		}
	})
}
