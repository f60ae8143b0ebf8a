package marathon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// FuzzRead: whatever comes in is refused with a class that is not a bug, or is an app that prints, reads back as itself,
// and converts. Run it longer with: go test -fuzz FuzzRead ./framework/marathon
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		`{"id":"/a","cmd":"sleep 1"}`, `{"id":"/a","cmd":"x y","instances":2.0,"ports":null,"backoffFactor":1e999}`, `[`, `null`, `{}`, `"x"`, "\xff", `{"id":"/a","id":"/b"}`,
		`{"id":"a","args":["x"],"container":{"type":"mesos","volumes":[{"containerPath":"d","mode":"rw","external":{"name":"v-{ordinal}","provider":"dvdi","size":"5G","options":{"dvdi/driver":"pool","dvdi/size":"3"}}}]}}`,
		`{"id":"a","container":{"docker":{"image":"x","network":"USER","portMappings":[{"containerPort":80}]}},"ipAddress":{"networkName":"n"}}`,
		`{"id":"a","cmd":"xx","networks":[{"mode":"container","name":"n"}],"healthChecks":[{"protocol":"TCP","portIndex":0}],"constraints":[["a","unique"]]}`,
		`{"id":"a","cmd":"xx","container":{"type":"MESOS","volumes":[{"containerPath":"p","mode":"RW","persistent":{"size":1,"constraints":[["path","LIKE","x"]]}}]}}`,
		`{"id":"a","cmd":"xx","taskKillGracePeriodSeconds":9007199254740993,"unreachableStrategy":{"inactiveAfterSeconds":9007199254740992,"expungeAfterSeconds":9007199254740992}}`,
	} {
		f.Add([]byte(seed))
	}
	if files, err := filepath.Glob("/work/shared/marathon/corpus/*/*.json"); err == nil {
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil {
				f.Add(data)
			}
		}
	}
	o := Options{Role: "holdfast", DefaultNetwork: "net"}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := document.Parse(data)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if u, _, err := ReadUpdate(v); err == nil {
			base, err := Stored([]byte(`{"id":"/base","cmd":"sleep 1"}`))
			if err != nil {
				t.Fatal(err)
			}
			if a, _, err := u.Apply(base, o); err == nil {
				checkApp(t, a)
			} else {
				checkRefusal(t, err)
			}
		}
		a, _, err := Read(v, o)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		checkApp(t, a)
	})
}

func checkRefusal(t *testing.T, err error) {
	t.Helper()
	var se *document.SyntaxError
	if !errors.As(err, &se) && !fault.Is(err, fault.Invalid) {
		t.Errorf("refused as %s: %v", fault.ClassOf(err), err)
	}
}

func checkApp(t *testing.T, a *App) {
	t.Helper()
	a.AssignServicePorts(nil, func(int) bool { return false })
	out := a.JSON()
	again, err := Stored(out)
	if err != nil {
		t.Fatalf("%v %v\n%s", err, fault.DetailsOf(err), out)
	}
	if string(again.JSON()) != string(out) {
		t.Fatalf("printing is not stable:\n%s\n%s", out, again.JSON())
	}
	if _, err := document.Parse(definition.Print(out, definition.Live{Instances: 7, Version: "v", Extra: []byte(`"x":1`)})); err != nil {
		t.Fatalf("Print: %v\n%s", err, definition.Print(out, definition.Live{Instances: 7, Version: "v"}))
	}
	if a.Unsupported() != nil {
		return
	}
	if _, err := a.Spec(); err != nil {
		t.Fatalf("what is supported does not convert: %v\n%s", err, out)
	}
}
