package dial

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
)

func TestOpen(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("user:pw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{"unix:///tmp/x.sock", "/tmp/x.sock", "zk://127.0.0.1:1/holdfast/c", "consul://127.0.0.1:1/holdfast/c", "consuls://127.0.0.1:1/holdfast/c"} {
		r, err := Open(good, Options{SecretFile: secret})
		if err != nil {
			t.Errorf("Open(%q) = %v", good, err)
			continue
		}
		r.Close()
	}
	for _, bad := range []string{"", "x", "http://h/x", "zk://h", "zk://h/", "consul://h", "consul://u:p@h/x", "consul:///x", "consul://h/a b"} {
		if r, err := Open(bad, Options{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("Open(%q) = %v, %v; want invalid", bad, r, err)
		}
	}
	if _, err := Open("zk://h/x", Options{SecretFile: secret + "-"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("missing secret file: %v", err)
	}
}
