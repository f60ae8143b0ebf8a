// Package dockertest is a Docker volume plugin for tests, on a unix socket. It keeps state as a real one does and refuses what a real one would;
// its quirks are those that were met in the wild.
package dockertest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Quirk is a way in which a plugin answers other than the protocol wishes.
type Quirk string

// The quirks. Set one for a method by Plugin.Set.
const (
	Empty200  Quirk = "empty-200"  // 200 with nothing that was asked for: Mountpoint "", Volume null
	Null      Quirk = "null"       // 200 with the word null
	Err200    Quirk = "err-200"    // 200 with Err inside
	Status500 Quirk = "status-500" // 500 that says nothing
	Slow      Quirk = "slow"       // the effect is done, the answer never comes
	Garbage   Quirk = "garbage"    // 200 with something that is not JSON
	Half      Quirk = "half"       // half an answer, then the connection ends
	Endless   Quirk = "endless"    // an answer that never ends
	LostReply Quirk = "lost-reply" // the effect is done, then the connection ends
	Refuse    Quirk = "refuse"     // 500 with an Err that is not "no such volume"
	MultiLine Quirk = "multi-line" // 500 with an Err of several lines
	Unknown   Quirk = "unknown"    // 404, plain text: the method is not there
	BadPath   Quirk = "bad-path"   // a mount point with a line break in it
	OtherName Quirk = "other-name" // an answer about another volume
)

// Plugin is a running plugin.
type Plugin struct {
	// Dir is where the volumes' data are; Socket where it listens.
	Dir, Socket string
	// Scope is what Capabilities says, "local" unless set.
	Scope string
	// LooseGet answers 200 with a null volume for one that is not there, as some do.
	LooseGet bool
	// LooseMount answers 200 with no mount point for a volume that is not there.
	LooseMount bool
	// Counts has it count mounts without looking at their ids, below zero too, and never remove a volume whose count is not zero.
	Counts bool
	// Phantoms has a mount of a volume that is not there fail and leave a volume of that name in the list, which nothing else knows.
	Phantoms bool

	mu      sync.Mutex
	volumes map[string]*vol
	phantom []string
	quirks  map[string]Quirk
	calls   []string
	server  *http.Server
	done    chan struct{} // closed by Stop, ends slow answers
}

type vol struct {
	opts   map[string]string
	mounts map[string]bool
	count  int // with Counts
	made   time.Time
}

// Start listens on dir/<name>.sock, with data below dir/data.
func Start(dir, name string) (*Plugin, error) {
	p := &Plugin{Dir: filepath.Join(dir, "data"), Socket: filepath.Join(dir, name+".sock"), volumes: map[string]*vol{}, quirks: map[string]Quirk{}}
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		return nil, err
	}
	return p, p.Listen()
}

// Listen begins, or begins again after Stop: a plugin that was restarted and has kept its volumes.
func (p *Plugin) Listen() error {
	_ = os.Remove(p.Socket)
	ln, err := net.Listen("unix", p.Socket)
	if err != nil {
		return err
	}
	p.done = make(chan struct{})
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = p.server.Serve(ln) }()
	return nil
}

// Stop ends the plugin; like many, it forgets who has mounted what.
func (p *Plugin) Stop() {
	select {
	case <-p.done:
		return
	default:
		close(p.done)
	}
	_ = p.server.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.volumes {
		v.mounts = map[string]bool{}
	}
}

// Set gives a method ("VolumeDriver.Mount") a quirk; "" takes it away.
func (p *Plugin) Set(method string, q Quirk) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quirks[method] = q
}

// Calls gives the methods called so far, with the volume's name, in order.
func (p *Plugin) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.calls...)
}

// Forget empties Calls.
func (p *Plugin) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = nil
}

// Count gives how often a method was called.
func (p *Plugin) Count(method string) int {
	n := 0
	for _, c := range p.Calls() {
		if strings.HasPrefix(c, method+" ") {
			n++
		}
	}
	return n
}

// Volumes gives the names of the volumes that exist.
func (p *Plugin) Volumes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for n := range p.volumes {
		out = append(out, n)
	}
	return out
}

type request struct {
	Name, ID string
	Opts     map[string]string
}

// ServeHTTP is the protocol.
func (p *Plugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/")
	raw, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	var in request
	_ = json.Unmarshal(raw, &in)
	p.mu.Lock()
	p.calls = append(p.calls, method+" "+in.Name)
	q := p.quirks[method]
	p.mu.Unlock()
	if q == Refuse || q == Status500 || q == MultiLine || q == Unknown || q == Err200 {
		refuse(w, q)
		return
	}
	status, out := p.perform(method, in)
	p.answer(w, q, status, out)
}

func refuse(w http.ResponseWriter, q Quirk) {
	switch q {
	case Refuse:
		send(w, 500, map[string]string{"Err": "connection to the storage array timed out"})
	case MultiLine:
		send(w, 500, map[string]string{"Err": "first line\nsecond line\n\tthird"})
	case Err200:
		send(w, 200, map[string]string{"Err": "the backend is on fire"})
	case Unknown:
		http.Error(w, "404 page not found", http.StatusNotFound)
	default:
		w.WriteHeader(500)
	}
}

func (p *Plugin) answer(w http.ResponseWriter, q Quirk, status int, out any) {
	raw, _ := json.Marshal(out)
	switch q {
	case Slow:
		<-p.done
	case LostReply:
		drop(w, "")
	case Half:
		drop(w, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(raw)+100, raw[:len(raw)/2]))
	case Garbage:
		_, _ = w.Write([]byte("<html>no</html>"))
	case Empty200:
		_, _ = w.Write([]byte(`{"Mountpoint":"","Volume":null}`))
	case Null:
		_, _ = w.Write([]byte("null"))
	case BadPath:
		send(w, 200, map[string]string{"Mountpoint": p.Dir + "\n/etc"})
	case OtherName:
		send(w, 200, map[string]any{"Volume": map[string]string{"Name": "another"}})
	case Endless:
		block := []byte(strings.Repeat(" ", 64<<10))
		for i := 0; i < 1<<20; i++ {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	default:
		send(w, status, out)
	}
}

// drop writes raw bytes and ends the connection.
func drop(w http.ResponseWriter, raw string) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	_, _ = c.Write([]byte(raw))
	_ = c.Close()
}

func send(w http.ResponseWriter, status int, out any) {
	w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.1+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out)
}

func fail(text string) (int, any) { return 500, map[string]string{"Err": text} }

func (p *Plugin) perform(method string, in request) (int, any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.volumes[in.Name]
	switch method {
	case "Plugin.Activate":
		return 200, map[string]any{"Implements": []string{"VolumeDriver"}}
	case "VolumeDriver.Capabilities":
		scope := p.Scope
		if scope == "" {
			scope = "local"
		}
		return 200, map[string]any{"Capabilities": map[string]string{"Scope": scope}}
	case "VolumeDriver.Create":
		return p.create(in, v)
	case "VolumeDriver.List":
		list := []any{}
		for n, v := range p.volumes {
			list = append(list, p.show(n, v))
		}
		for _, n := range p.phantom {
			list = append(list, map[string]string{"Name": n})
		}
		return 200, map[string]any{"Volumes": list}
	case "VolumeDriver.Get":
		if v == nil && p.LooseGet {
			return 200, map[string]any{"Volume": nil}
		}
		if v != nil {
			return 200, map[string]any{"Volume": p.show(in.Name, v)}
		}
	case "VolumeDriver.Mount":
		if v == nil && p.LooseMount {
			return 200, map[string]string{"Mountpoint": ""}
		}
		if v == nil && p.Phantoms {
			p.phantom = append(p.phantom, in.Name)
		}
		if v != nil {
			v.count++
			v.mounts[in.ID] = true
			return 200, map[string]string{"Mountpoint": p.path(in.Name)}
		}
	case "VolumeDriver.Path":
		if v != nil {
			return 200, map[string]string{"Mountpoint": p.path(in.Name)}
		}
	case "VolumeDriver.Unmount":
		if v != nil && p.Counts {
			v.count--
			return 200, struct{}{}
		}
		if v != nil && !v.mounts[in.ID] {
			return fail("volume is not mounted by this id")
		}
		if v != nil {
			delete(v.mounts, in.ID)
			return 200, struct{}{}
		}
	case "VolumeDriver.Remove":
		if v != nil && p.Counts && v.count != 0 {
			return fail(fmt.Sprintf("volume is in use by %d", v.count))
		}
		if v != nil && !p.Counts && len(v.mounts) > 0 {
			return fail("volume is in use")
		}
		if v != nil {
			delete(p.volumes, in.Name)
			_ = os.RemoveAll(p.path(in.Name))
			return 200, struct{}{}
		}
	}
	return fail("volume not found")
}

func (p *Plugin) create(in request, v *vol) (int, any) {
	if v != nil {
		return fail("volume already exists")
	}
	if err := os.Mkdir(p.path(in.Name), 0o755); err != nil {
		return fail(err.Error())
	}
	p.volumes[in.Name] = &vol{opts: in.Opts, mounts: map[string]bool{}, made: time.Now()}
	return 200, struct{}{}
}

func (p *Plugin) show(name string, v *vol) any {
	return map[string]any{"Name": name, "Mountpoint": p.path(name), "CreatedAt": v.made.UTC().Format(time.RFC3339), "Status": map[string]any{}}
}

func (p *Plugin) path(name string) string { return filepath.Join(p.Dir, filepath.Base(name)) }
