package isolatortest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// BenchmarkHeavyMountUnmount takes one volume through mount and unmount, without a grant: by the client in this process, by curl, and by
// dvdcli. The difference of the last two is what dvdcli costs.
func BenchmarkHeavyMountUnmount(b *testing.B) {
	heavy.Require(b, heavy.Program("curl"), heavy.Program("go"))
	m := benchMachine(b)
	bin := filepath.Join(m.dir, "dvdcli")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "github.com/holdfast-io/holdfast/dvdcli")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	if _, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v"}); err != nil {
		b.Fatal(err)
	}
	if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil {
		b.Fatal(err)
	}
	run := func(b *testing.B, name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), client.SocketVariable+"="+m.socket)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), `"code"`) {
			b.Fatalf("%v: %s", err, out)
		}
	}
	b.Run("client", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v"}); err != nil {
				b.Fatal(err)
			}
			if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("curl", func(b *testing.B) {
		for b.Loop() {
			for _, call := range []string{"mount", "unmount"} {
				run(b, "curl", "-s", "-f", "--unix-socket", m.socket, "-d", `{"driver":"pool","name":"v"}`, "http://isolator/v1/"+call)
			}
		}
	})
	b.Run("dvdcli", func(b *testing.B) {
		for b.Loop() {
			for _, call := range []string{"mount", "unmount"} {
				run(b, bin, call, "--volumedriver=pool", "--volumename=v")
			}
		}
	})
	b.Run("start", func(b *testing.B) { // what a dvdcli costs that does nothing
		for b.Loop() {
			run(b, bin, "version")
		}
	})
}

// BenchmarkHeavyMany mounts volumes beside n that are mounted already: latency should not grow.
func BenchmarkHeavyMany(b *testing.B) {
	heavy.Require(b)
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := benchMachine(b)
			for i := range n {
				if _, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: fmt.Sprintf("m%d", i)}); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if _, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v"}); err != nil {
					b.Fatal(err)
				}
				if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			for i := range n {
				_, _ = m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: fmt.Sprintf("m%d", i)})
			}
		})
	}
}

func benchMachine(b *testing.B) *machine {
	m := newMachine(b, 0)
	m.start("")
	return m
}
