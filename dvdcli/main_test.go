package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver/dockertest"
	"github.com/holdfast-io/holdfast/isolator/isolatortest"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/embedded"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"dvdcli":                     main,
		isolatortest.Program:         isolatortest.Main,
		isolatortest.WatchdogProgram: isolatortest.Watchdog,
	})
}

// world is what a script's own commands work on.
type world struct {
	dir    string
	plugin *dockertest.Plugin
	server *embedded.Server
	auth   *lease.Authority
	close  []func()
}

// Scripts have these commands beside testscript's:
//
//	plugin start NAME | stop | again | set METHOD QUIRK | loose | counts | volumes [NAME…] | count METHOD N
//	authority            starts one and sets AUTHORITY
//	claim NAME           makes a claim of pool/NAME, grants epoch+1 to the node in $NODE_DIR, and sets GRANT to its --volumeopts
//	sleep DURATION
//	wait-ready           waits until the isolator at $HOLDFAST_ISOLATOR takes mounts
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			dir, err := os.MkdirTemp("/tmp", "hfs") // sockets want short paths
			if err != nil {
				return err
			}
			w := &world{dir: dir}
			e.Values["world"] = w
			e.Defer(func() {
				for _, f := range w.close {
					f()
				}
				os.RemoveAll(dir)
			})
			e.Setenv("HOLDFAST_PLUGIN_DIR", dir)
			e.Setenv("S", dir)
			e.Setenv("GORACE", "atexit_sleep_ms=0") // a second at the end of every program otherwise
			e.Setenv("HOLDFAST_ISOLATOR", "")
			e.Setenv("PATH", os.Getenv("PATH")+":"+e.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"plugin": plugin, "authority": authority, "claim": claim, "wait-ready": waitReady, "sleep": pause,
		},
	})
}

func plugin(ts *testscript.TestScript, _ bool, args []string) {
	w := ts.Value("world").(*world)
	var err error
	switch args[0] {
	case "start":
		w.plugin, err = dockertest.Start(w.dir, args[1])
		w.close = append(w.close, func() { w.plugin.Stop() })
	case "set":
		q := ""
		if len(args) > 2 {
			q = args[2]
		}
		w.plugin.Set(args[1], dockertest.Quirk(q))
	case "counts":
		w.plugin.Counts = true
	case "stop":
		w.plugin.Stop()
	case "again":
		err = w.plugin.Listen()
	case "loose":
		w.plugin.LooseGet, w.plugin.LooseMount = true, true
	case "volumes":
		got := w.plugin.Volumes()
		sort.Strings(got)
		if strings.Join(got, " ") != strings.Join(args[1:], " ") {
			ts.Fatalf("volumes are %v, want %v", got, args[1:])
		}
	case "count":
		if n := fmt.Sprint(w.plugin.Count(args[1])); n != args[2] {
			ts.Fatalf("%s was called %s times, want %s: %v", args[1], n, args[2], w.plugin.Calls())
		}
	default:
		ts.Fatalf("plugin %s?", args[0])
	}
	ts.Check(err)
}

func authority(ts *testscript.TestScript, _ bool, _ []string) {
	w := ts.Value("world").(*world)
	var err error
	w.server, err = embedded.Open(filepath.Join(w.dir, "authority.db"))
	ts.Check(err)
	socket := filepath.Join(w.dir, "authority.sock")
	l, err := w.server.Listen(socket)
	ts.Check(err)
	w.close = append(w.close, func() { l.Close(); w.server.Close() })
	w.auth = lease.New(w.server.Registers(), lease.Options{})
	_, err = w.auth.Init(context.Background(), uuid.NewString())
	ts.Check(err)
	ts.Setenv("AUTHORITY", "unix://"+socket)
}

func claim(ts *testscript.TestScript, _ bool, args []string) {
	w, ctx := ts.Value("world").(*world), context.Background()
	node, err := os.ReadFile(filepath.Join(w.dir, "node", "node-uid"))
	ts.Check(err)
	ref := volume.Ref{Driver: "pool", Name: args[0]}
	c, err := w.auth.ClaimByRef(ctx, ref)
	if err != nil {
		c, err = w.auth.Create(ctx, uuid.Must(uuid.NewV7()).String(), ref, lease.Policy{Mode: lease.PolicyLease, MinGrade: lease.GradeSoft}, false)
		ts.Check(err)
	}
	g := volume.Grant{VolumeUID: c.VolumeUID, Epoch: c.Epoch + 1, Nonce: uuid.NewString(), Task: "t", MustExist: true}
	_, err = w.auth.Grant(ctx, lease.GrantArgs{VolumeUID: c.VolumeUID, Epoch: g.Epoch, Node: strings.TrimSpace(string(node)), Nonce: g.Nonce, Policy: c.Policy, Owner: "t"})
	ts.Check(err)
	for k, v := range g.Encode(nil) {
		name := strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(k, "holdfast."), "-", "_"))
		ts.Setenv("G_"+name, "--volumeopts="+k+"="+v)
	}
}

func pause(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(d)
}

func waitReady(ts *testscript.TestScript, _ bool, _ []string) {
	socket := ts.Getenv("HOLDFAST_ISOLATOR")
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if healthy(socket) {
			return
		}
	}
	ts.Fatalf("the isolator at %s is not ready", socket)
}
