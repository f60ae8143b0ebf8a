package isolatortest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver/dockertest"
)

// pairs is how many mounts with their unmounts one iteration does, so that a single one tells something.
const pairs = 25

// BenchmarkMountUnmount takes one volume through mount and unmount, without a grant: by the client in this process, by curl, and by
// dvdcli. The difference of the last two is what dvdcli costs.
func BenchmarkMountUnmount(b *testing.B) {
	if _, err := exec.LookPath("curl"); err != nil {
		b.Skip("needs the program curl")
	}
	m := benchMachine(b)
	bin := buildDvdcli(b, m.dir)
	m.pair(b, "v") // creates it
	run := func(b *testing.B, name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), client.SocketVariable+"="+m.socket)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), `"code"`) {
			b.Fatalf("%v: %s", err, out)
		}
	}
	calls := []string{"mount", "unmount"}
	measure(b, "client", func() { m.pair(b, "v") })
	measure(b, "curl", func() {
		for _, call := range calls {
			run(b, "curl", "-s", "-f", "--unix-socket", m.socket, "-d", `{"driver":"pool","name":"v"}`, "http://isolator/v1/"+call)
		}
	})
	measure(b, "dvdcli", func() {
		for _, call := range calls {
			run(b, bin, call, "--volumedriver=pool", "--volumename=v")
		}
	})
	measure(b, "dvdcli-start-only", func() { // two starts that do nothing
		for range calls {
			run(b, bin, "version")
		}
	})
}

// BenchmarkAgainstDirect takes a volume of one Docker plugin through dvdcli mount and dvdcli unmount, in turn by way of the isolator (claim, journal and
// look for users included) and by dvdcli itself. The ratio is what the isolator costs.
func BenchmarkAgainstDirect(b *testing.B) {
	m := newMachine(b, 0)
	plugins := filepath.Join(m.dir, "plugins")
	if _, err := dockertest.Start(plugins, "bench"); err != nil {
		b.Fatal(err)
	}
	m.args = []string{"-plugin-dir", plugins}
	m.start("")
	bin := buildDvdcli(b, m.dir)
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, client.SocketVariable+"=") })
	pair := func(name string, env ...string) time.Duration {
		begun := time.Now()
		for _, call := range []string{"mount", "unmount"} {
			cmd := exec.Command(bin, call, "--volumedriver=bench", "--volumename="+name)
			cmd.Env = env
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
		return time.Since(begun)
	}
	through := append(slices.Clone(env), client.SocketVariable+"="+m.socket)
	direct := append(slices.Clone(env), "HOLDFAST_PLUGIN_DIR="+plugins)
	pair("t", through...) // creates it
	pair("d", direct...)
	for b.Loop() {
		var isolator, itself []time.Duration
		for range 4 * pairs {
			isolator = append(isolator, pair("t", through...))
			itself = append(itself, pair("d", direct...))
		}
		slices.Sort(isolator)
		slices.Sort(itself)
		median := func(d []time.Duration) float64 { return float64(d[len(d)/2].Microseconds()) / 1000 }
		b.ReportMetric(float64(isolator[0].Microseconds())/float64(itself[0].Microseconds()), "ratio-of-best")
		b.ReportMetric(median(isolator), "ms/isolator")
		b.ReportMetric(median(itself), "ms/direct")
		b.ReportMetric(median(isolator)/median(itself), "ratio")
	}
}

func buildDvdcli(t testing.TB, dir string) string {
	t.Helper()
	bin := filepath.Join(dir, "dvdcli")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "github.com/holdfast-io/holdfast/dvdcli")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// BenchmarkBesideMounted mounts a volume beside n that are mounted already: latency should not grow.
func BenchmarkBesideMounted(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		m := benchMachine(b)
		for i := range n {
			if _, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: fmt.Sprintf("m%d", i)}); err != nil {
				b.Fatal(err)
			}
		}
		measure(b, fmt.Sprint(n), func() { m.pair(b, "v") })
		b.Run(fmt.Sprintf("%d-recovery", n), func(b *testing.B) { // from the start of the process to the first mount it would take
			for b.Loop() {
				m.kill()
				begun := time.Now()
				m.start("")
				b.ReportMetric(float64(time.Since(begun).Microseconds())/1000, "ms/recovery")
			}
		})
		for i := range n {
			_, _ = m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: fmt.Sprintf("m%d", i)})
		}
	}
}

// measure reports milliseconds for each pair.
func measure(b *testing.B, name string, pair func()) {
	b.Run(name, func(b *testing.B) {
		n := 0
		for b.Loop() {
			for range pairs {
				pair()
				n++
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(n), "ms/pair")
	})
}

func (m *machine) pair(b *testing.B, name string) {
	if _, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: name}); err != nil {
		b.Fatal(err)
	}
	if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: name}); err != nil {
		b.Fatal(err)
	}
}

func benchMachine(b *testing.B) *machine {
	m := newMachine(b, 0)
	m.start("")
	return m
}
