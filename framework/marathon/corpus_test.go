package marathon

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// corpusDir is the folder with valid/, invalid/ and SOURCES.tsv, or "".
func corpusDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("HOLDFAST_MARATHON_CORPUS")
	if dir == "" {
		dir = "/work/shared/marathon/corpus"
	}
	if _, err := os.Stat(filepath.Join(dir, "valid")); err != nil {
		t.Skipf("NO CORPUS: %s is not there; set HOLDFAST_MARATHON_CORPUS to a folder of Marathon documents to run this test", dir)
	}
	return dir
}

func corpusFiles(t *testing.T, dir, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s in %s: %v", pattern, dir, err)
	}
	sort.Strings(files)
	return files
}

// needs reads which settings of Marathon a valid document needs.
func corpusNeeds(t *testing.T, dir string) map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "SOURCES.tsv"))
	if err != nil {
		return nil
	}
	defer f.Close()
	out := map[string]string{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if cols := strings.Split(sc.Text(), "\t"); len(cols) > 4 {
			out[filepath.Base(cols[0])] = cols[4]
		}
	}
	return out
}

func optionsFor(needs string) Options {
	o := Options{Role: "marathon"}
	if _, role, ok := strings.Cut(needs, "--mesos_role "); ok && !strings.HasPrefix(role, "other") {
		o.Role = strings.Fields(role)[0]
	}
	if strings.Contains(needs, "--default_network_name") {
		o.DefaultNetwork = "default-net"
	}
	return o
}

var rewrite = flag.Bool("rewrite", false, "write testdata/notyet.tsv anew; read the difference before you commit it")

func isGroup(name string) bool { return strings.HasPrefix(name, "group-") }

// checkGroup reads a group, and compares what each app is read as with what it is alone.
func checkGroup(t *testing.T, name string, data []byte, o Options) {
	v, err := document.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	g, _, err := ReadGroup(v, "/", o)
	if err != nil {
		t.Fatalf("refused: %v %v", err, fault.DetailsOf(err))
	}
	apps := 0
	var walk func(*Group)
	walk = func(g *Group) {
		for _, a := range g.Apps {
			apps++
			if parentOf(a.App.ID) != g.ID || a.ID != a.App.ID {
				t.Errorf("app %s (%s) is in group %s", a.ID, a.App.ID, g.ID)
			}
			checkValid(t, name, []byte(a.Value.Compact()), o)
		}
		for _, sub := range g.Groups {
			if parentOf(sub.ID) != g.ID {
				t.Errorf("group %s is in group %s", sub.ID, g.ID)
			}
			walk(sub)
		}
	}
	walk(g)
	if want := strings.Count(string(data), `"cmd"`); apps != want {
		t.Errorf("%d apps, want %d", apps, want)
	}
}

// droppedByIntent are fields that are read and not printed, per document, as in Marathon.
var droppedByIntent = map[string][]string{
	"app-v1_5_15-AppDefinitionSchemaJSONTest-L168.json": {"/container/portMappings"}, // no network: host, where mappings mean nothing
}

func TestCorpusValid(t *testing.T) {
	dir := corpusDir(t)
	needs := corpusNeeds(t, dir)
	for _, file := range corpusFiles(t, dir, "valid/*.json") {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if isGroup(name) {
				checkGroup(t, name, data, optionsFor(needs[name]))
				return
			}
			for _, doc := range members(t, name, data) {
				checkValid(t, name, doc, optionsFor(needs[name]))
			}
		})
	}
}

// TestCorpusNotYet compares what of the valid documents this version refuses to run with the list in testdata/notyet.tsv:
// document, paths. Whoever makes something work takes its lines off (go test -rewrite).
func TestCorpusNotYet(t *testing.T) {
	dir := corpusDir(t)
	needs := corpusNeeds(t, dir)
	var got strings.Builder
	for _, file := range corpusFiles(t, dir, "valid/app*.json") {
		name := filepath.Base(file)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range members(t, name, data) {
			a, err := readDocument(name, doc, optionsFor(needs[name]))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if no := a.Unsupported(); no != nil {
				for _, d := range fault.DetailsOf(no) {
					fmt.Fprintf(&got, "%s\t%s\n", name, d.Path)
				}
			} else if _, err := a.Spec(); err != nil {
				t.Errorf("%s is supported and does not convert: %v", name, err)
			}
		}
	}
	const golden = "testdata/notyet.tsv"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("HOLDFAST_MARATHON_CORPUS") == "" && got.String() != string(want) {
		t.Errorf("what is not done yet differs from %s; now:\n%s", golden, got.String())
	}
}

// members gives the apps in a document: itself, or those of an array.
func members(t *testing.T, name string, data []byte) [][]byte {
	if !strings.HasPrefix(name, "apps-") {
		return [][]byte{data}
	}
	var all []json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for _, one := range all {
		out = append(out, one)
	}
	return out
}

func isUpdate(name string) bool {
	return strings.HasPrefix(name, "app-update-") || strings.HasPrefix(name, "apps-update-")
}

func readDocument(name string, data []byte, o Options) (*App, error) {
	if !isUpdate(name) {
		a, _, err := Parse(data, o)
		return a, err
	}
	v, err := document.Parse(data)
	if err != nil {
		return nil, err
	}
	u, _, err := ReadUpdate(v)
	if err != nil {
		return nil, err
	}
	app := `{"id":"/base","cmd":"sleep 1"}`
	if strings.Contains(string(data), `"secret"`) { // the app must have the secret that the update refers to
		app = `{"id":"/base","cmd":"sleep 1","secrets":{"database":{"source":"x"}}}`
	}
	base, err := Stored([]byte(app))
	if err != nil {
		return nil, err
	}
	a, _, err := u.Apply(base, o)
	return a, err
}

func checkValid(t *testing.T, name string, data []byte, o Options) {
	a, err := readDocument(name, data, o)
	if err != nil {
		t.Fatalf("refused: %v %v", err, fault.DetailsOf(err))
	}
	out := a.JSON()
	again, err := Stored(out)
	if err != nil {
		t.Fatalf("what was printed cannot be read: %v %v\n%s", err, fault.DetailsOf(err), out)
	}
	if second := again.JSON(); string(second) != string(out) {
		t.Errorf("printing is not stable:\n%s\n%s", out, second)
	}
	var in, printed any
	if err := json.Unmarshal(data, &in); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &printed); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lost := compare("", in, printed, nil)
	var real []string
	for _, l := range lost {
		if !expectedLoss(name, l) {
			real = append(real, l)
		}
	}
	if len(real) > 0 {
		t.Errorf("lost: %s\n in: %s\nout: %s", strings.Join(real, ", "), data, out)
	}
}

// oldForms are the input-only fields; their content is compared under the new names by the tests of migrate.
var oldForms = []string{"/ports", "/uris", "/ipAddress", "/container/docker/network", "/container/docker/portMappings", "/version", "/versionInfo", "/id"}

func expectedLoss(name, path string) bool {
	for _, p := range append(oldForms, droppedByIntent[name]...) {
		if path == p || strings.HasPrefix(path, p+"/") || strings.HasPrefix(path, p+"(") {
			return true
		}
	}
	return path == "/role" // "*" is printed as the framework's role
}

// compare gives the paths of what is in a and not, or not so, in b. null and empty are the same as absent.
func compare(path string, a, b any, out []string) []string {
	switch x := a.(type) {
	case nil:
		return out
	case map[string]any:
		y, _ := b.(map[string]any)
		for k, v := range x {
			out = compare(path+"/"+k, v, y[k], out)
		}
		return out
	case []any:
		y, _ := b.([]any)
		if len(x) != len(y) && len(x) > 0 {
			return append(out, path)
		}
		for i := range x {
			out = compare(fmt.Sprintf("%s(%d)", path, i), x[i], y[i], out)
		}
		return out
	}
	if !reflect.DeepEqual(a, b) {
		return append(out, path)
	}
	return out
}

// acceptedByIntent are invalid documents that Holdfast accepts on purpose.
var acceptedByIntent = map[string]string{
	"app-AppsResourceTest-L1630.json":    "the size of a volume in a DOCKER container: it is made before the container",
	"app-update-AppUpdateTest-L326.json": "role * means the framework's role, so that resident apps may have it",
	"app-update-AppUpdateTest-L374.json": "role * means the framework's role, so that resident apps may have it",
	"app-update-AppUpdateTest-L413.json": "role * means the framework's role, so that resident apps may have it",
}

func TestCorpusInvalid(t *testing.T) {
	dir := corpusDir(t)
	for _, file := range corpusFiles(t, dir, "invalid/*.json") {
		name := filepath.Base(file)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		reason, err := os.ReadFile(strings.TrimSuffix(file, ".json") + ".reason")
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			var err error
			if isGroup(name) {
				var v *document.Value
				if v, err = document.Parse(data); err == nil {
					_, _, err = ReadGroup(v, "/", Options{Role: "mesos_role"})
				}
			} else {
				_, err = readDocument(name, data, Options{Role: "mesos_role"})
			}
			if why, ok := acceptedByIntent[name]; ok {
				if err != nil {
					t.Errorf("is on the list of documents accepted by intent (%s), but is refused: %v", why, err)
				}
				return
			}
			checkReason(t, string(reason), err)
		})
	}
}

func checkReason(t *testing.T, reason string, err error) {
	t.Helper()
	var se *document.SyntaxError
	status := 422
	if errors.As(err, &se) {
		status = 400
	}
	if err == nil {
		t.Fatalf("accepted; want\n%s", reason)
	}
	for _, line := range strings.Split(reason, "\n") {
		key, rest, _ := strings.Cut(line, ": ")
		switch key {
		case "status":
			if rest != fmt.Sprint(status) {
				t.Errorf("status %d, want %s", status, rest)
			}
		case "message":
			if status == 422 && !strings.HasPrefix(err.Error(), rest) {
				t.Errorf("message %q, want %q", err, rest)
			}
		case "error":
			path, text, _ := strings.Cut(rest, "\t")
			if !hasDetail(err, path, text) {
				t.Errorf("no %q at %s; got %v", text, path, fault.DetailsOf(err))
			}
		}
	}
}

func hasDetail(err error, path, text string) bool {
	for _, d := range fault.DetailsOf(err) {
		if d.Path != path {
			continue
		}
		for _, e := range d.Errors {
			// [...] stands for a list that depends on the settings.
			if start, _, open := strings.Cut(text, "[...]"); e == text || open && strings.HasPrefix(e, start) {
				return true
			}
		}
	}
	return false
}
