package layers

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/holdfast-io/holdfast"

// ban forbids packages in `from` to reach packages in `to`. Paths that begin with "./" are in this module and
// cover what is below them; others are import paths, also with what is below them.
type ban struct {
	from, to []string
	except   []string // packages of from that may
	why      string
	// direct bans only an import written in the package itself; otherwise nothing on the way may bring it in either.
	direct bool
}

var bans = []ban{
	{from: []string{"./scheduler"}, direct: true,
		to:  []string{"net", "net/http", "os", "os/exec", "io/fs", "syscall", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog", "go.uber.org/zap", "golang.org/x/sys", "sync", "context"},
		why: "Step is pure: no I/O, clock, randomness, goroutine or logger, so that every decision can be replayed"},
	{from: []string{"./scheduler"},
		to:  []string{"./framework", "./isolator", "./dvdcli", "./cmd", "github.com/mesos/mesos-go", "go.uber.org/zap"},
		why: "the scheduler decides on values; it knows neither who runs it nor Mesos"},
	{from: []string{"./scheduler/state"},
		to:  []string{"./scheduler", "./framework", "./isolator"},
		why: "the vocabulary is a leaf that everything may import"},
	{from: []string{"./framework/embedded"},
		to:  []string{"./framework", "./scheduler", "./isolator"},
		why: "the engine is the cluster: as little of ours in it as in Apache Mesos"},
	{from: []string{"./framework/marathon"}, direct: true,
		to:  []string{"net/http", "os", "os/exec"},
		why: "app JSON is data: types, defaults, validation, no I/O"},
	{from: []string{"./framework/embedded/agent"}, to: []string{"./framework/embedded/allocator", "./framework/embedded/registry", "./framework/embedded/view", "./framework/embedded/wire"},
		why: "an agent knows its master by the wire alone"},
	{from: []string{"./isolator"},
		to:  []string{"./framework", "./scheduler", "./dvdcli", "./cmd", "github.com/mesos/mesos-go"},
		why: "the node helper serves stock Marathon and Docker too; it knows no framework"},
	{from: []string{"./isolator/driver"}, to: []string{"./isolator/lease", "./isolator/server", "./isolator/fence"},
		why: "a driver mounts; who may mount is decided above it"},
	{from: []string{"./isolator/lease"}, to: []string{"./isolator/driver", "./isolator/mount", "./isolator/fence", "./isolator/server"},
		why: "claims and leases are about records, not about mounts"},
	{from: []string{"./dvdcli"},
		to:  []string{"./framework", "./scheduler", "./cmd", "./isolator/lease", "./isolator/fence", "./isolator/server", "github.com/mesos/mesos-go", "github.com/hashicorp/consul", "github.com/go-zookeeper/zk", "google.golang.org/grpc", "go.etcd.io/bbolt", "github.com/spf13/cobra"},
		why: "dvdcli starts once per mount: 2.5 ms without these, 5.5 ms with them"},
	{from: []string{"./internal"}, to: []string{"./framework", "./scheduler", "./isolator", "./dvdcli", "./cmd"},
		why: "lower rooms know nothing of higher ones"},
	{from: []string{"."}, direct: true, to: []string{"github.com/go-zookeeper/zk"},
		except: []string{"./isolator/lease/zookeeper", "./framework/store/zookeeper", "./internal/zkconn", "./framework/mesos", "./internal/servertest"},
		why:    "ZooKeeper is one authority among others, behind the interfaces of lease and store"},
	{from: []string{"."}, direct: true, to: []string{"github.com/hashicorp/consul"},
		except: []string{"./isolator/lease/consul", "./isolator/lease/dial", "./framework/store/consul", "./framework/catalog", "./internal/consulconn", "./internal/servertest"},
		why:    "Consul is one authority among others, behind the interfaces of lease and store"},
	{from: []string{"."}, direct: true, to: []string{"google.golang.org/grpc", "github.com/container-storage-interface/spec"},
		except: []string{"./isolator/driver/csi", "./isolator/driver/csibook", "./isolator/driver/csistage", "./isolator/driver/csiwire", "./isolator/csiplugin"},
		why:    "CSI is one kind of driver among others, behind the interface of isolator/driver"},
	{from: []string{"."}, direct: true, to: []string{"github.com/mesos/mesos-go"},
		except: []string{"./framework/mesos", "./framework/embedded"},
		why:    "Mesos's types end at the two rooms that speak to it and play it"},
}

// dvdcliMay is everything of ours that dvdcli may bring in.
var dvdcliMay = []string{"./dvdcli", "./isolator/client", "./isolator/driver", "./internal/fault", "./internal/volume"}

type pkg struct {
	ImportPath string
	Dir        string
	Standard   bool
	Imports    []string
	Deps       []string
	GoFiles    []string
	Error      *struct{ Err string }
}

// load lists every package of the module with all that it imports, as the go command sees it.
func load(t *testing.T) []*pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Standard,Imports,Deps,GoFiles,Error", module+"/...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []*pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := new(pkg)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(filepath.Dir(dir))
}

func absolute(p string) string {
	if p == "." {
		return module
	}
	if rest, ok := strings.CutPrefix(p, "./"); ok {
		return module + "/" + rest
	}
	return p
}

func within(path string, trees []string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool {
		tree = absolute(tree)
		return path == tree || strings.HasPrefix(path, tree+"/")
	})
}

// violations gives one line for each package that a ban catches.
func violations(all []*pkg, b ban) (out []string) {
	for _, p := range all {
		if !within(p.ImportPath, b.from) || within(p.ImportPath, b.except) {
			continue
		}
		reach := p.Deps
		if b.direct {
			reach = p.Imports
		}
		for _, dep := range reach {
			// A room may know itself and what is below it: a ban on ./framework from ./framework/embedded means the rest of it.
			if within(dep, b.to) && !within(dep, b.from) {
				out = append(out, strings.TrimPrefix(p.ImportPath, module+"/")+" imports "+dep+": "+b.why)
			}
		}
	}
	return out
}

func TestBans(t *testing.T) {
	all := load(t)
	for _, b := range bans {
		for _, v := range violations(all, b) {
			t.Error(v)
		}
	}
	for _, p := range all {
		if p.ImportPath != absolute("./dvdcli") {
			continue
		}
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, module+"/") && !within(dep, dvdcliMay) {
				t.Errorf("dvdcli imports %s: it may know only %v", dep, dvdcliMay)
			}
		}
	}
}

// TestBansCatch breaks each ban on purpose: a ban that catches nothing guards nothing.
func TestBansCatch(t *testing.T) {
	for _, b := range bans {
		for _, to := range b.to {
			dep := absolute(to) + "/made/up"
			if within(dep, b.from) {
				continue // the ban's own tree lies within what it bans
			}
			bad := &pkg{ImportPath: absolute(b.from[0]) + "/made/up", Imports: []string{dep}, Deps: []string{dep}}
			if len(violations([]*pkg{bad}, b)) == 0 {
				t.Errorf("ban %v -> %s does not catch %s importing %s", b.from, to, bad.ImportPath, dep)
			}
		}
	}
}

// TestSchedulerReadsNoClock looks for what an import ban cannot see: calls of time.Now and its like, go statements, select.
func TestSchedulerReadsNoClock(t *testing.T) {
	eachFile(t, filepath.Join(root(t), "scheduler"), func(path string, set *token.FileSet, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine in the scheduler", set.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "NewTicker", "Tick"}, n.Sel.Name) {
					t.Errorf("%s: time.%s: time comes in as an argument", set.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	})
}

// TestEveryPackageSaysWhatItIs wants a doc comment of a sentence in every package, no package named util or common, and a
// tree at most three deep.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	top := root(t)
	docs := map[string]string{}
	eachFile(t, top, func(path string, _ *token.FileSet, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		dir, err := filepath.Rel(top, filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		docs[dir] += f.Doc.Text()
	})
	for dir, doc := range docs {
		if len(doc) < 40 {
			t.Errorf("%s: no package comment that a newcomer would understand: %q", dir, doc)
		}
		if base := filepath.Base(dir); slices.Contains([]string{"util", "utils", "common", "helpers", "types", "misc"}, base) {
			t.Errorf("%s: name a package after the noun it holds", dir)
		}
		if strings.Count(dir, string(filepath.Separator)) > 2 {
			t.Errorf("%s: more than three deep", dir)
		}
	}
}

func eachFile(t *testing.T, dir string, f func(path string, set *token.FileSet, file *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != dir || d.Name() == "testdata" || d.Name() == "bin"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		set := token.NewFileSet()
		file, perr := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if perr != nil {
			return perr
		}
		f(path, set, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
