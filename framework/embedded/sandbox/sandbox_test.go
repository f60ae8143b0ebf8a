package sandbox

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

func TestContainerPath(t *testing.T) {
	for _, c := range []struct {
		in, want string
		abs      bool
	}{
		{"data", "data", false}, {"a//b/./c", "a/b/c", false}, {"data/", "data", false}, {"/mnt/x/", "/mnt/x", true}, {"..data", "..data", false},
	} {
		got, abs, err := ContainerPath(c.in)
		if err != nil || got != c.want || abs != c.abs {
			t.Errorf("%q: %q %v %v", c.in, got, abs, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/..", "../x", "a/../../x", "/../x", "/", "//", "a\x00b", strings.Repeat("x", 5000)} {
		if got, _, err := ContainerPath(bad); err == nil {
			t.Errorf("%q is accepted as %q", bad, got)
		}
	}
}

func TestLinkStaysInside(t *testing.T) {
	box, outside := t.TempDir(), t.TempDir()
	if err := Link(box, "a/b/data", outside); err != nil {
		t.Fatal(err)
	}
	if to, _ := os.Readlink(box + "/a/b/data"); to != outside {
		t.Errorf("link to %q", to)
	}
	if err := Link(box, "a/b/data", outside); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second link: %v", err)
	}
	os.Symlink(outside, box+"/trap")
	if err := Link(box, "trap/data", outside); err == nil {
		t.Error("a link was made through a link that leads out")
	}
	if err := Link(box, "trap/deep/data", outside); err == nil {
		t.Error("a directory was made through a link that leads out")
	}
	if _, err := Subdirectory(box, "trap/x", nil); err == nil {
		t.Error("a directory was made through a link that leads out")
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("outside is %v", left)
	}
}

func TestCreateAndRemove(t *testing.T) {
	dir := t.TempDir()
	p := Place{Agent: "m-S0", Framework: "f", Executor: "t 1", Container: "c1"}
	first, err := Create(dir, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Container = "c2"
	second, err := Create(dir, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if to, _ := os.Readlink(filepath.Dir(second) + "/latest"); to != "c2" {
		t.Errorf("latest is %q", to)
	}
	outside := t.TempDir()
	os.WriteFile(outside+"/precious", nil, 0o644)
	os.Symlink(outside, second+"/data")
	for _, d := range []string{first, second} {
		if err := Remove(dir, d); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(outside + "/precious"); err != nil {
		t.Error("a volume was deleted with the sandbox")
	}
	if err := Remove(dir, dir+"/meta"); err == nil {
		t.Error("something else than a sandbox was deleted")
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a\x00", "a\n", strings.Repeat("x", 256)} {
		if _, err := Create(dir, Place{Agent: "a", Framework: "f", Executor: bad, Container: "c"}, nil); err == nil {
			t.Errorf("id %q is accepted", bad)
		}
		if _, err := PersistentVolume(dir, "role", bad); err == nil {
			t.Errorf("volume %q is accepted", bad)
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	box := t.TempDir()
	o, err := NewOutput(box, "stdout", nil)
	if err != nil {
		t.Fatal(err)
	}
	o.limit = 1000
	w, err := os.OpenFile("/proc/self/fd/"+itoa(int(o.Write.Fd())), os.O_WRONLY, 0) // the task's end
	if err != nil {
		t.Fatal(err)
	}
	o.Begin()
	for i := 0; i < 100; i++ {
		w.Write(bytes.Repeat([]byte{byte('a' + i%26)}, 99))
		w.Write([]byte("\n"))
		if i%5 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	w.Close()
	o.Finish()
	var all int64
	for _, n := range []string{"stdout", "stdout.1"} {
		st, err := os.Stat(box + "/" + n)
		if err != nil {
			t.Fatal(err)
		}
		all += st.Size()
	}
	if all > 2*(1000+32<<10) || all == 0 {
		t.Errorf("%d bytes are kept", all)
	}
	tail, _ := os.ReadFile(box + "/stdout")
	if !bytes.HasSuffix(tail, []byte("v\n")) { // 99 % 26
		t.Errorf("the end is %q", tail)
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// tarball makes a gzipped archive of headers; every plain file holds "x".
func tarball(headers ...tar.Header) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = 1
		}
		h.Mode = 0o755
		w.WriteHeader(&h)
		if h.Size == 1 {
			w.Write([]byte("x"))
		}
	}
	w.Close()
	z.Close()
	return buf.Bytes()
}

func TestFetch(t *testing.T) {
	var zipped bytes.Buffer
	z := zip.NewWriter(&zipped)
	f, _ := z.Create("deep/in/zip")
	f.Write([]byte("z"))
	z.Close()
	served := map[string][]byte{
		"/plain.txt": []byte("hello"),
		"/app.tar.gz": tarball(tar.Header{Name: "bin/", Typeflag: tar.TypeDir}, tar.Header{Name: "bin/run", Typeflag: tar.TypeReg},
			tar.Header{Name: "current", Typeflag: tar.TypeSymlink, Linkname: "bin"}),
		"/app.zip":      zipped.Bytes(),
		"/climb.tgz":    tarball(tar.Header{Name: "../../evil", Typeflag: tar.TypeReg}),
		"/absolute.tgz": tarball(tar.Header{Name: "/tmp/evil", Typeflag: tar.TypeReg}),
		"/through.tgz":  tarball(tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, tar.Header{Name: "out/evil", Typeflag: tar.TypeReg}),
		"/device.tgz":   tarball(tar.Header{Name: "null", Typeflag: tar.TypeChar}),
		"/hard.tgz":     tarball(tar.Header{Name: "shadow", Typeflag: tar.TypeLink, Linkname: "../../../../../../etc/shadow"}),
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := served[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write(data)
	}))
	defer srv.Close()
	host := t.TempDir()
	os.WriteFile(host+"/local.sh", []byte("#!/bin/sh\n"), 0o644)
	str := func(s string) *string { return &s }
	yes, no := true, false
	for _, c := range []struct {
		uri  mesos.CommandInfo_URI
		file string // what is there afterwards
		err  string
	}{
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/plain.txt"}, file: "plain.txt"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/plain.txt", OutputFile: str("a/b/c.txt")}, file: "a/b/c.txt"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/app.tar.gz"}, file: "current/run"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/app.tar.gz", Extract: &no}, file: "app.tar.gz"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/app.zip"}, file: "deep/in/zip"},
		{uri: mesos.CommandInfo_URI{Value: "file://" + host + "/local.sh", Executable: &yes}, file: "local.sh"},
		{uri: mesos.CommandInfo_URI{Value: host + "/local.sh"}, file: "local.sh"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/missing"}, err: "404"},
		{uri: mesos.CommandInfo_URI{Value: "ftp://host/x"}, err: "scheme 'ftp'"},
		{uri: mesos.CommandInfo_URI{Value: host}, err: "not a plain file"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/plain.txt", OutputFile: str("../evil")}, err: "inside of the sandbox"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/plain.txt", OutputFile: str("/etc/evil")}, err: "inside of the sandbox"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/climb.tgz"}, err: "outside of the sandbox"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/absolute.tgz"}, err: "outside of the sandbox"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/through.tgz"}, err: "escapes"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/device.tgz"}, err: "not unpacked"},
		{uri: mesos.CommandInfo_URI{Value: srv.URL + "/hard.tgz"}, err: "outside of the sandbox"},
	} {
		box := t.TempDir()
		err := Fetch(context.Background(), box, []mesos.CommandInfo_URI{c.uri}, nil)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.uri.Value, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.uri.Value, err)
			continue
		}
		st, err := os.Stat(filepath.Join(box, c.file))
		if err != nil {
			t.Errorf("%s: %v", c.uri.Value, err)
		} else if c.uri.Executable != nil && st.Mode()&0o111 == 0 {
			t.Errorf("%s is not executable", c.file)
		}
	}
	if _, err := os.Stat("/tmp/evil"); err == nil {
		t.Error("/tmp/evil was written")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Fetch(ctx, t.TempDir(), []mesos.CommandInfo_URI{{Value: host + "/local.sh"}}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled fetch: %v", err)
	}
}
