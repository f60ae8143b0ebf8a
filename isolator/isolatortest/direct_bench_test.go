package isolatortest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver/dockertest"
)

// BenchmarkDirect takes a volume of a Docker plugin through mount and unmount where no isolator is installed, in turn by dvdcli and by curl with the same calls
// of the protocol (the old dvdcli: 4.5 ms a call of its own, 0.38 of curl's time). It also says how long dvdcli takes to start, and how large it is.
func BenchmarkDirect(b *testing.B) {
	if _, err := exec.LookPath("curl"); err != nil {
		b.Skip("needs the program curl")
	}
	dir, err := os.MkdirTemp("/tmp", "hfb")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	p, err := dockertest.Start(dir, "bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Stop)
	bin := buildDvdcli(b, dir)
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return len(kv) > len(client.SocketVariable) && kv[:len(client.SocketVariable)] == client.SocketVariable
	})
	env = append(env, "HOLDFAST_PLUGIN_DIR="+dir)
	run := func(name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	dvdcli := func() {
		run(bin, "mount", "--volumedriver=bench", "--volumename=v")
		run(bin, "unmount", "--volumedriver=bench", "--volumename=v")
	}
	dvdcli() // creates it
	p.Forget()
	dvdcli()
	calls := p.Calls() // what curl has to say as well
	curl := func() {
		for _, c := range calls {
			var method, name string
			_, _ = fmt.Sscan(c, &method, &name)
			run("curl", "-s", "-f", "--unix-socket", p.Socket, "-d", fmt.Sprintf(`{"Name":%q,"ID":"dvdcli"}`, name), "http://plugin/"+method)
		}
	}
	took := func(f func()) time.Duration {
		begun := time.Now()
		f()
		return time.Since(begun)
	}
	for b.Loop() {
		var direct, curled, start []time.Duration
		for range 4 * pairs {
			direct, curled, start = append(direct, took(dvdcli)), append(curled, took(curl)), append(start, took(func() { run(bin, "version") }))
		}
		median := func(d []time.Duration) float64 {
			slices.Sort(d)
			return float64(d[len(d)/2].Microseconds()) / 1000
		}
		b.ReportMetric(median(direct)/2, "ms/call")
		b.ReportMetric(median(curled)/2, "ms/curl")
		b.ReportMetric(median(direct)/median(curled), "of-curl")
		b.ReportMetric(median(start), "ms/start")
	}
	if fi, err := os.Stat(filepath.Join(dir, "dvdcli")); err == nil {
		b.ReportMetric(float64(fi.Size())/(1<<20), "MiB")
	}
	b.ReportMetric(float64(len(calls)), "calls")
}
