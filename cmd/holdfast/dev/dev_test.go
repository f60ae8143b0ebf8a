package dev

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
)

func TestLayoutKeepsSocketPathsShort(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("a-long-directory-name/", 9))
	l, err := NewLayout(deep)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{l.controlSocket(), l.nodeAuthority("agent50"), l.nodeSocket("agent50")} {
		if len(path) > 107 {
			t.Errorf("socket path %s has %d bytes", path, len(path))
		}
	}
	other, err := NewLayout(deep + "x")
	if err != nil || other.Sockets == l.Sockets {
		t.Errorf("two directories share %s: %v", l.Sockets, err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(deep, link); err != nil {
		t.Fatal(err)
	}
	if same, err := NewLayout(link); err != nil || same != l {
		t.Errorf("a link to the directory is another cluster: %+v, %v", same, err)
	}
}

func TestSocketDirectoryOfSomebodyElseIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(dir); err == nil {
		t.Error("a directory open to all was taken")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(link); err == nil {
		t.Error("a symbolic link was taken")
	}
}

func TestOneSupervisorPerDirectory(t *testing.T) {
	l, err := NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	first, err := l.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.lock(); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("second lock: %v", err)
	}
	first.Close()
	again, err := l.lock()
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestNothingIsStartedOnAnUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{Dir: filepath.Join(file, "dir"), Port: 1}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a file in the way: %v", err)
	}
	if _, err := Start(t.Context(), Config{Dir: t.TempDir(), Port: 0}); !fault.Is(err, fault.Invalid) {
		t.Errorf("port 0: %v", err)
	}
	if _, err := Start(t.Context(), Config{Dir: t.TempDir(), Port: 1, Agents: -1}); !fault.Is(err, fault.Invalid) {
		t.Errorf("-1 agents: %v", err)
	}
}

func TestPortBlocksAreDisjoint(t *testing.T) {
	seen := map[int]bool{}
	for range 5 {
		b, err := takePorts("the same asker")
		if err != nil {
			t.Fatal(err)
		}
		defer b.lock.Close()
		if seen[b.first] || b.first < portsFirst || b.first+portsBlock > 32000 {
			t.Errorf("block %d after %v", b.first, seen)
		}
		seen[b.first] = true
	}
}

func TestMachineStaysAsItWasMade(t *testing.T) {
	dir := t.TempDir()
	made, block, err := openMachine(dir, machine{CPUs: 4, MemMB: 100, Disk: 10, Zone: "z", Rack: "r"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := openMachine(dir, machine{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("its ports were given out twice: %v", err)
	}
	block.lock.Close()
	again, block, err := openMachine(dir, machine{CPUs: 8})
	if err != nil || again != made {
		t.Errorf("it is now %+v, not %+v: %v", again, made, err)
	}
	block.lock.Close()
	if err := os.WriteFile(filepath.Join(dir, "machine.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openMachine(dir, machine{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a damaged file: %v", err)
	}
}
