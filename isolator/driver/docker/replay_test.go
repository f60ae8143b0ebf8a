package docker_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/docker"
)

var recordedCall = regexp.MustCompile(`(?m)^=== \d+ (\S+) \(curl rc=(\d+)\)\n> ?(.*)\n`)

// raw serves one recorded reply, byte by byte, to every call but activation; an empty one is a connection that ends.
func raw(t *testing.T, dir string) (d *docker.Driver, next func(reply string), asked func() (string, string)) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, "rec.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var reply, method, body string
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err == nil {
				in := new(strings.Builder)
				_, _ = fmt.Fprint(in, read(req))
				if req.URL.Path == "/Plugin.Activate" {
					fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n"+`{"Implements":["VolumeDriver"]}`+"\n")
				} else {
					method, body = strings.TrimPrefix(req.URL.Path, "/"), in.String()
					fmt.Fprint(c, reply)
				}
			}
			c.Close()
		}
	}()
	d, err = docker.New(docker.Options{Name: "rec", Dirs: docker.Dirs{Sockets: []string{dir}}, ReadLimit: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return d, func(r string) { reply = r }, func() (string, string) { return method, body }
}

func read(r *http.Request) string {
	var v any
	if json.NewDecoder(r.Body).Decode(&v) != nil {
		return ""
	}
	out, _ := json.Marshal(v)
	return string(out)
}

// said is what the words of a recorded error prove.
var said = map[string]fault.Class{
	"volume not found": fault.NotFound, "volume already exists": fault.Exists, "volume has active mounts": fault.Conflict, "volume is in use": fault.Conflict,
}

// TestReplay asks for what was asked of rclone and of Docker's local driver (../shared/driver-wire), gets what they answered, and takes each answer for what it
// proves: success with what is in it, absence by the plugin's word alone, an end of the connection for unknown.
func TestReplay(t *testing.T) {
	calls := 0
	for _, name := range []string{"rclone", "rclone-crash", "docker-local", "docker-local-shim"} {
		file, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "shared", "driver-wire", name+".txt"))
		if err != nil {
			t.Skipf("the recorded exchanges are not here: %v", err)
		}
		d, next, asked := raw(t, shortDir(t))
		at := recordedCall.FindAllSubmatchIndex(file, -1)
		for i, m := range at {
			end := len(file)
			if i+1 < len(at) {
				end = at[i+1][0]
			}
			method, rc, in, rest := string(file[m[2]:m[3]]), string(file[m[4]:m[5]]), string(file[m[6]:m[7]]), string(file[m[1]:end])
			if method == "Plugin.Activate" || (rc != "0" && rc != "52") || !strings.HasPrefix(method, "VolumeDriver.") {
				continue // not reached
			}
			rest, _, _ = strings.Cut(rest, "\n$ ")
			reply := ""
			if rc == "0" {
				reply = strings.TrimRight(rest, "\n") + "\n"
			}
			head, content, _ := strings.Cut(reply, "\n\n")
			next(strings.ReplaceAll(regexp.MustCompile(`(?i)Content-Length: \d+`).ReplaceAllString(head, fmt.Sprint("Content-Length: ", len(content))), "\n", "\r\n") + "\r\n\r\n" + content)
			if reply == "" {
				next("")
			}
			where := fmt.Sprintf("%s, call %d, %s %s", name, i+1, method, in)
			got, err := ask(d, method, in)
			if got == "not sent" {
				continue
			}
			calls++
			if m, body := asked(); m != method && !(method == "VolumeDriver.Mount" && m == "VolumeDriver.Path") || !strings.Contains(in+"{}", body) && m == method && !same(body, in) {
				t.Errorf("%s: sent %s %s", where, m, body)
			}
			check(t, where, method, content, got, err)
		}
	}
	if calls < 50 {
		t.Errorf("only %d calls were replayed", calls)
	}
}

func same(a, b string) bool {
	var x, y map[string]any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	for k, v := range y {
		if fmt.Sprint(x[k]) != fmt.Sprint(v) {
			return false
		}
	}
	return true
}

// ask makes the driver's call; what it would not send at all is "not sent".
func ask(d *docker.Driver, method, in string) (string, error) {
	var q struct {
		Name, ID string
		Opts     map[string]string
	}
	_ = json.Unmarshal([]byte(in), &q)
	switch strings.TrimPrefix(method, "VolumeDriver.") {
	case "Create":
		_, err := d.Create(ctx, driver.Spec{Name: q.Name, Options: q.Opts})
		if fault.Is(err, fault.Invalid) {
			return "not sent", err
		}
		return "", err
	case "Get":
		i, err := d.Get(ctx, q.Name)
		return i.Path, err
	case "Mount":
		return d.Mount(ctx, driver.MountSpec{Name: q.Name, ID: q.ID})
	case "Path":
		return d.Path(ctx, q.Name)
	case "Unmount":
		return "", d.Unmount(ctx, q.Name, q.ID)
	case "Remove":
		return "", d.Remove(ctx, q.Name, "")
	case "List":
		all, err := d.List(ctx)
		return fmt.Sprint(len(all)), err
	}
	return "not sent", nil
}

func check(t *testing.T, where, method, content, got string, err error) {
	t.Helper()
	var r struct {
		Err, Mountpoint string
		Volume          struct{ Mountpoint string }
		Volumes         []any
	}
	jerr := json.Unmarshal([]byte(content), &r)
	class, known := said[r.Err]
	switch {
	case content == "" || jerr != nil:
		if !fault.Is(err, fault.Unknown) {
			t.Errorf("%s: the connection ended, and: %v", where, err)
		}
	case r.Err == "" && err != nil:
		t.Errorf("%s: %v", where, err)
	case r.Err == "":
		want := map[string]string{"VolumeDriver.Get": r.Volume.Mountpoint, "VolumeDriver.Mount": r.Mountpoint, "VolumeDriver.Path": r.Mountpoint, "VolumeDriver.List": fmt.Sprint(len(r.Volumes))}[method]
		if got != want {
			t.Errorf("%s: %q, want %q", where, got, want)
		}
	case method == "VolumeDriver.Unmount" && (strings.Contains(r.Err, "not mounted") || class == fault.NotFound):
		if err != nil { // that is what was wished for
			t.Errorf("%s: %v", where, err)
		}
	case known && !fault.Is(err, class):
		t.Errorf("%s: %v is %s, want %s", where, err, fault.ClassOf(err), class)
	case !known && !fault.Is(err, fault.Unknown):
		t.Errorf("%s: %v is %s, which %q does not prove", where, err, fault.ClassOf(err), r.Err)
	}
}
