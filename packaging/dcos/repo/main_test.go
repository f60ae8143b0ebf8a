package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/packaging/dcos"
)

// What DC/OS does with a repository: read it with its type, then fetch what its package names.
func TestRepositoryIsServed(t *testing.T) {
	dir := t.TempDir()
	artifact := filepath.Join(dir, "made.tar.gz")
	if err := os.WriteFile(artifact, []byte("tarball"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "repo")
	srv := httptest.NewServer(handler(out))
	defer srv.Close()
	if err := build("1.2.3", srv.URL+"/", artifact, 1, out); err != nil {
		t.Fatal(err)
	}
	for _, format := range dcos.Formats() {
		raw, header := get(t, srv.URL+"/"+fileOf(format))
		if header.Get("Content-Type") != dcos.ContentType(format) {
			t.Errorf("%s is served as %q", format, header.Get("Content-Type"))
		}
		var repo struct {
			Packages []struct {
				Resource struct {
					Assets struct{ URIs map[string]string }
					Images map[string]string
				}
			}
		}
		if err := json.Unmarshal(raw, &repo); err != nil {
			t.Fatal(err)
		}
		r := repo.Packages[0].Resource
		if got, _ := get(t, r.Assets.URIs["holdfast-tar-gz"]); string(got) != "tarball" {
			t.Errorf("the asset is %q", got)
		}
		for name, url := range r.Images {
			if got, _ := get(t, url); !strings.HasPrefix(string(got), "\x89PNG") {
				t.Errorf("%s is no PNG", name)
			}
		}
	}
	for _, bad := range [][2]string{{"", artifact}, {srv.URL, ""}, {srv.URL, filepath.Join(dir, "none")}} {
		if err := build("1.2.3", bad[0], bad[1], 0, out); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func get(t *testing.T, url string) ([]byte, http.Header) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, resp.Status, err)
	}
	return raw, resp.Header
}
