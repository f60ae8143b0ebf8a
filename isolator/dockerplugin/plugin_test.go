package dockerplugin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/dockerplugin"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/docker"
	"github.com/holdfast-io/holdfast/isolator/driver/dockertest"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/embedded"
	"github.com/holdfast-io/holdfast/isolator/server"
)

var bg = context.Background()

// node is an isolator with two pools and a plugin behind it, and its face towards Docker.
type node struct {
	*testing.T
	service *isolator.Service
	auth    *lease.Authority
	plugin  *dockertest.Plugin
	http    *http.Client
	dir     string
}

func start(t *testing.T) *node {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfd") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	srv, err := embedded.Open(filepath.Join(dir, "authority"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	n := &node{T: t, dir: dir, auth: lease.New(srv.Registers(), lease.Options{})}
	if _, err := n.auth.Init(bg, uuid.NewString()); err != nil {
		t.Fatal(err)
	}
	if n.plugin, err = dockertest.Start(dir, "other"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.plugin.Stop() })
	n.service = openService(t, n.auth, dir)
	socket := filepath.Join(dir, "holdfast.sock")
	face, err := server.Listen(n.service, server.Options{Socket: socket, Group: -1, Log: zap.NewNop(), Remove: true,
		Handler: dockerplugin.Handler(n.service, dockerplugin.Options{Dir: filepath.Join(dir, "docker"), Log: zap.NewNop()})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(bg)
	done := make(chan struct{}, 2)
	go func() { _ = n.service.Run(ctx); done <- struct{}{} }()
	go func() { _ = face.Serve(ctx); done <- struct{}{} }()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
		n.service.Close()
		if _, err := os.Lstat(socket); err == nil {
			t.Error("the socket was left behind; Docker would wait for it")
		}
	})
	<-n.service.Ready()
	n.http = &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	t.Cleanup(n.http.CloseIdleConnections)
	return n
}

func openService(t *testing.T, auth *lease.Authority, dir string) *isolator.Service {
	t.Helper()
	var pools []driver.Driver
	off := false
	for _, name := range []string{"pool", "slow"} {
		p, err := pool.Open(pool.Options{Name: name, Dir: filepath.Join(dir, name), Binds: &off})
		if err != nil {
			t.Fatal(err)
		}
		pools = append(pools, p)
	}
	dirs := docker.Dirs{Sockets: []string{dir}, Specs: []string{dir}}
	s, err := isolator.Open(isolator.Options{Dir: filepath.Join(dir, "node"), Authority: auth, Drivers: pools, Timings: lease.EmbeddedTimings(),
		Clock: lease.Monotonic(), WatchdogClock: unix.CLOCK_MONOTONIC, Describe: isolator.Describe{Hostname: "h", Version: "9.9"},
		Resolve: func(name string) (driver.Driver, error) {
			return docker.New(docker.Options{Name: name, Dirs: dirs, NoIsolators: true})
		},
		Discover: dirs.Names})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type reply struct {
	Err, Mountpoint string
	Volume          *struct {
		Name, Mountpoint string
		Status           map[string]any
	}
	Volumes []struct {
		Name   string
		Status map[string]any
	}
	Capabilities struct{ Scope string }
	Implements   []string
}

// raw sends a body as it is.
func (n *node) raw(method, body string) (int, http.Header, string) {
	n.Helper()
	resp, err := n.http.Post("http://d/"+method, "", strings.NewReader(body))
	if err != nil {
		n.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		n.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(got)
}

func (n *node) call(method, body string) reply {
	n.Helper()
	status, header, text := n.raw("VolumeDriver."+method, body)
	var r reply
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		n.Fatalf("%s %s: %v: %s", method, body, err, text)
	}
	if (r.Err != "") != (status == http.StatusInternalServerError) || header.Get("Content-Type") != "application/vnd.docker.plugins.v1.2+json" {
		n.Errorf("%s %s: status %d, type %s, %s", method, body, status, header.Get("Content-Type"), text)
	}
	return r
}

// ok is call where no error may come.
func (n *node) ok(method, body string) reply {
	n.Helper()
	r := n.call(method, body)
	if r.Err != "" {
		n.Fatalf("%s %s: %s", method, body, r.Err)
	}
	return r
}

// refused is call where an error must come that holds all the words.
func (n *node) refused(method, body string, words ...string) {
	n.Helper()
	r := n.call(method, body)
	for _, w := range words {
		if !strings.Contains(r.Err, w) {
			n.Errorf("%s %s: %q does not say %q", method, body, r.Err, w)
		}
	}
	if r.Err == "" {
		n.Errorf("%s %s was not refused", method, body)
	}
}

func (n *node) claim(name string) lease.Claim {
	n.Helper()
	c, err := n.auth.ClaimByRef(bg, volume.Ref{Driver: "pool", Name: name})
	if err != nil {
		n.Fatal(err)
	}
	return c.Claim
}

// The exchange that Docker Engine 20.10 was recorded with, request by request.
func TestAsDockerCalls(t *testing.T) {
	n := start(t)
	if _, _, text := n.raw("Plugin.Activate", ""); !strings.Contains(text, `"Implements":["VolumeDriver"]`) {
		t.Fatalf("activate: %s", text)
	}
	if s := n.ok("Capabilities", "{}").Capabilities.Scope; s != "local" {
		t.Errorf("scope %q", s)
	}
	n.refused("Get", `{"Name":"dv1"}`, "no such volume")
	n.ok("Create", `{"Name":"dv1","Opts":{"size":"1"}}`)
	if v := n.ok("List", "{}").Volumes; len(v) != 1 || v[0].Name != "dv1" || v[0].Status["driver"] != "pool" {
		t.Errorf("list %+v", v)
	}
	if v := n.ok("Get", `{"Name":"dv1"}`).Volume; v == nil || v.Name != "dv1" || v.Mountpoint != "" {
		t.Errorf("get %+v", v)
	}
	const id = `"ID":"f759d8df8e7ea924f88889abfa44c48fe487ec70ec57cb2979710a61ebc58392"`
	at := n.ok("Mount", `{"Name":"dv1",`+id+`}`).Mountpoint
	if !strings.HasSuffix(at, "/pool/dv1/data") {
		t.Fatalf("mounted at %q", at)
	}
	if c := n.claim("dv1"); c.State != lease.Held || !strings.HasPrefix(c.Owner, "docker:f759") {
		t.Errorf("claim %+v", c)
	}
	if v := n.ok("Get", `{"Name":"dv1"}`).Volume; v.Mountpoint != at || v.Status["usedBy"] == nil || v.Status["claim"] != "held" || v.Status["here"] != true ||
		v.Status["holder"] != "docker:f759d8df8e7ea924f88889abfa44c48fe487ec70ec57cb2979710a61ebc58392" || v.Status["node"] != n.service.NodeUID() || v.Status["since"] == nil {
		t.Errorf("get while mounted %+v", v)
	}
	n.refused("Remove", `{"Name":"dv1"}`, "mounted on this node")
	n.ok("Unmount", `{"Name":"dv1",`+id+`}`)
	if c := n.claim("dv1"); c.State != lease.Free {
		t.Errorf("claim %+v", c)
	}
	if v := n.ok("Get", `{"Name":"dv1"}`).Volume; v.Status["claim"] != "free" || v.Status["holder"] != nil {
		t.Errorf("get after unmount %+v", v)
	}
	n.ok("Remove", `{"Name":"dv1"}`)
	n.refused("Remove", `{"Name":"dv1"}`, "no such volume")
	n.refused("Mount", `{"Name":"dv1",`+id+`}`, "no such volume")
}

// Two containers of one node are two uses: one at a time. The same use asking twice has it already.
func TestOneContainerAtATime(t *testing.T) {
	n := start(t)
	n.ok("Create", `{"Name":"a"}`)
	at := n.ok("Mount", `{"Name":"a","ID":"one"}`).Mountpoint
	epoch := n.claim("a").Epoch
	if again := n.ok("Mount", `{"Name":"a","ID":"one"}`).Mountpoint; again != at || n.claim("a").Epoch != epoch {
		t.Errorf("the same id got %q, epoch %d -> %d", again, epoch, n.claim("a").Epoch)
	}
	n.refused("Mount", `{"Name":"a","ID":"two"}`, "pool/a can be used by one container at a time", "docker:one")
	if _, err := n.service.Mount(bg, isolator.MountRequest{Ref: volume.Ref{Driver: "pool", Name: "a"}}); err == nil {
		t.Error("Mesos got what a container of Docker's has")
	}
	n.ok("Unmount", `{"Name":"a","ID":"two"}`) // refused before: it has nothing, and loses nothing
	n.ok("Unmount", `{"Name":"nobody","ID":"two"}`)
	if c := n.claim("a"); c.State != lease.Held || c.Epoch != epoch {
		t.Errorf("another's unmount took it away: %+v", c)
	}
	n.ok("Unmount", `{"Name":"a","ID":"one"}`)
	n.ok("Unmount", `{"Name":"a","ID":"one"}`)
	n.ok("Mount", `{"Name":"a","ID":"two"}`)
	if c := n.claim("a"); c.State != lease.Held || c.Epoch <= epoch {
		t.Errorf("next use %+v", c)
	}
	n.ok("Unmount", `{"Name":"a","ID":"two"}`)
}

func TestCreateOnceForTheSameOptions(t *testing.T) {
	n := start(t)
	n.ok("Create", `{"Name":"a","Opts":{"size":"2"}}`)
	uid := n.claim("a").VolumeUID
	n.ok("Create", `{"Name":"a","Opts":{"size":"2"}}`)
	n.ok("Create", `{"Name":"a","Opts":{"driver":"pool","size":"2"}}`)
	n.refused("Create", `{"Name":"a","Opts":{"size":"3"}}`, "other options")
	n.refused("Create", `{"Name":"a","Opts":{"driver":"slow"}}`, "slow/a")
	if n.claim("a").VolumeUID != uid {
		t.Error("it was made anew")
	}
	// One that Mesos had made: what can be compared must agree.
	if _, err := n.service.Create(bg, volume.Ref{Driver: "pool", Name: "m"}, map[string]string{"size": "1"}); err != nil {
		t.Fatal(err)
	}
	n.refused("Create", `{"Name":"m","Opts":{"size":"9"}}`, "size=9")
	n.ok("Create", `{"Name":"m","Opts":{"size":"1"}}`)
	n.ok("Create", `{"Name":"m"}`+"\n")
}

// Without its content a claimed volume is not made a second time, whatever Docker asks for.
func TestNothingIsCreatedInItsPlace(t *testing.T) {
	n := start(t)
	n.ok("Create", `{"Name":"a"}`)
	if err := os.Rename(filepath.Join(n.dir, "pool", "a"), filepath.Join(n.dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	n.refused("Get", `{"Name":"a"}`)
	n.refused("Create", `{"Name":"a"}`, "nothing is created in its place")
	n.refused("Mount", `{"Name":"a","ID":"x"}`)
	if err := os.Rename(filepath.Join(n.dir, "elsewhere"), filepath.Join(n.dir, "pool", "a")); err != nil {
		t.Fatal(err)
	}
	n.ok("Mount", `{"Name":"a","ID":"x"}`)
	n.ok("Unmount", `{"Name":"a","ID":"x"}`)
}

// Every driver behind the isolator is one behind Docker.
func TestDriverOption(t *testing.T) {
	n := start(t)
	n.ok("Create", `{"Name":"s","Opts":{"driver":"slow"}}`)
	n.ok("Create", `{"Name":"p","Opts":{"driver":"other","x":"y"}}`)
	n.refused("Create", `{"Name":"q","Opts":{"driver":"nobody"}}`, "nobody")
	n.refused("Create", `{"Name":"q","Opts":{"driver":"holdfast"}}`, "isolator")
	if at := n.ok("Mount", `{"Name":"p","ID":"1"}`).Mountpoint; at != filepath.Join(n.plugin.Dir, "p") {
		t.Errorf("plugin's volume at %q", at)
	}
	if at := n.ok("Mount", `{"Name":"s","ID":"1"}`).Mountpoint; !strings.Contains(at, "/slow/s/") {
		t.Errorf("second pool's volume at %q", at)
	}
	var names []string
	for _, v := range n.ok("List", "").Volumes {
		names = append(names, v.Name)
	}
	if strings.Join(names, " ") != "p s" {
		t.Errorf("list %v", names)
	}
	n.ok("Unmount", `{"Name":"p","ID":"1"}`)
	n.ok("Unmount", `{"Name":"s","ID":"1"}`)
	// Two drivers with one name: only the full name says which.
	n.ok("Create", `{"Name":"pool/s"}`)
	n.refused("Get", `{"Name":"s"}`, "pool/s", "slow/s")
	n.refused("Mount", `{"Name":"s","ID":"1"}`, "pool/s", "slow/s")
	if at := n.ok("Mount", `{"Name":"pool/s","ID":"1"}`).Mountpoint; !strings.Contains(at, "/pool/s/") {
		t.Errorf("spelled out: %q", at)
	}
	n.ok("Unmount", `{"Name":"pool/s","ID":"1"}`)
	n.ok("Remove", `{"Name":"p"}`)
	if v := n.plugin.Volumes(); len(v) != 0 {
		t.Errorf("plugin has %v left", v)
	}
}

// Whatever is sent, the answer is one that Docker can read, and the isolator lives.
func TestHostileRequests(t *testing.T) {
	n := start(t)
	for _, body := range []string{`{"Name":"../x"}`, `{"Name":"a\nb"}`, `{"Name":""}`, `{"Name":"/"}`, `{"Name":"pool/../x"}`, `{"Name":"` + strings.Repeat("x", 500) + `"}`, `{}`} {
		for _, m := range []string{"Get", "Create", "Path", "Remove"} {
			n.refused(m, body)
		}
	}
	n.refused("Create", `{"Name":"a","Opts":{"holdfast.epoch":"1"}}`, "holdfast.")
	n.ok("Create", `{"Name":"a"}`)
	for _, id := range []string{``, `a b`, `a\u0000`, strings.Repeat("f", 1000)} {
		n.refused("Mount", `{"Name":"a","ID":"`+id+`"}`, "id of a mount")
	}
	for _, body := range []string{"not json", `{"Name":5}`, `[]`, string(bytes.Repeat([]byte("["), 1<<21))} {
		if status, _, text := n.raw("VolumeDriver.Mount", body); status != http.StatusBadRequest || !regexp.MustCompile(`^\{"Err":".+"\}\n$`).MatchString(text) {
			t.Errorf("%.20q: %d %.100q", body, status, text)
		}
	}
	if status, header, _ := n.raw("VolumeDriver.Bogus", "{}"); status != http.StatusNotFound || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
		t.Errorf("unknown call: %d %s", status, header.Get("Content-Type"))
	}
	n.ok("Get", `{"Name":"a"}`)
}
