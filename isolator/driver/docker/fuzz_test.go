package docker

import (
	"net/http"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Whatever a plugin answers, decoding ends in a value or in an error of one line with a class.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{``, `{}`, `null`, `{"Err":"no such volume"}`, `{"Err":{"a":1}}`, `{"Err":null}`, `{"Volume":null}`, `{"Volume":{"Name":"v","Mountpoint":"/x"}}`, `[]`, `{"Mountpoint":5}`, "\xff", `{"Err":"a\nb"}`} {
		f.Add(200, "application/json", s)
		f.Add(500, "text/plain", s)
	}
	f.Fuzz(func(t *testing.T, status int, contentType, body string) {
		resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}}
		var out struct{ Volume *wireVolume }
		for _, into := range []any{&out, nil} {
			err := decode("VolumeDriver.Get", resp, []byte(body), into)
			if err == nil && status != 200 {
				t.Fatalf("status %d is a success", status)
			}
			if err == nil {
				continue
			}
			var said *pluginError
			if asError(err, &said) && strings.ContainsAny(said.text, "\n\r") {
				t.Fatalf("the plugin's words are not one line: %q", said.text)
			}
			if fault.ClassOf(err) == fault.NotFound && said == nil {
				t.Fatalf("not found without the plugin's word: %v", err)
			}
		}
	})
}

func FuzzSpec(f *testing.F) {
	for _, s := range []string{"unix:///x", "tcp://h:1", "/x", "", "unix://x", "http://", "\x00", "tcp://[::1]:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseSpec("f", []byte(s))
		if err == nil && (e.address == "" || (e.network == "unix" && !strings.HasPrefix(e.address, "/"))) {
			t.Fatalf("%q gives %+v", s, e)
		}
		_, _ = parseJSON("f", []byte(s))
	})
}
