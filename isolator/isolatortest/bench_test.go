package isolatortest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// BenchmarkBesideMounted mounts a volume beside 1, 100 and 1,000 that are mounted already, through the service: latency should not grow. With all of them mounted it
// tells what the isolator takes of memory, and of the processor when nothing happens, how long it needs from kill -9 until it takes mounts again, and mounts
// 50 more at once. HOLDFAST_BENCH_VOLUMES is the largest number.
func BenchmarkBesideMounted(b *testing.B) {
	most := 1000
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_BENCH_VOLUMES")); err == nil {
		most = n
	}
	for _, backend := range []string{"dir", "btrfs", "loop"} {
		b.Run(backend, func(b *testing.B) { besideMounted(b, backend, most) })
	}
}

func besideMounted(b *testing.B, backend string, most int) {
	m := newMachine(b, 0)
	m.poolFlags = []string{"-pool-backend", backend}
	if backend == "loop" {
		m.poolFlags = append(m.poolFlags, "-pool-size", strconv.Itoa(16<<20))
	}
	if backend == "btrfs" {
		onBtrfs(b, m.pool)
	}
	m.start("")
	m.pair(b, "v")
	mounted := 0
	b.Cleanup(func() {
		manyAtOnce(mounted, 4, func(i int) {
			_, _ = m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: fmt.Sprintf("m%d", i)})
		})
	})
	upTo := func(n int) (longest time.Duration) {
		var mu sync.Mutex
		from := mounted
		mounted = n
		manyAtOnce(n-from, 50, func(i int) {
			begun := time.Now()
			if _, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: fmt.Sprintf("m%d", from+i)}); err != nil {
				b.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			longest = max(longest, time.Since(begun))
		})
		return longest
	}
	for _, n := range []int{1, 100, most} {
		upTo(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				var took []time.Duration
				for range 2 * pairs {
					begun := time.Now()
					m.pair(b, "v")
					took = append(took, time.Since(begun))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/pair")
				b.ReportMetric(float64(took[0].Microseconds())/1000, "ms/best")
			}
		})
	}
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			used, begun := m.cpu(b), time.Now()
			time.Sleep(5 * time.Second)
			b.ReportMetric(100*(m.cpu(b)-used).Seconds()/time.Since(begun).Seconds(), "%cpu-idle")
			b.ReportMetric(m.resident(b), "MiB")
			m.kill()
			begun = time.Now()
			m.start("")
			b.ReportMetric(float64(time.Since(begun).Microseconds())/1000, "ms/recovery")
			b.ReportMetric(m.resident(b), "MiB-after-recovery")
			begun = time.Now()
			longest := upTo(most + 50) // they are created, too
			b.ReportMetric(float64(time.Since(begun).Microseconds())/1000, "ms/50-at-once")
			b.ReportMetric(float64(longest.Microseconds())/1000, "ms/slowest-of-50")
		}
	})
}

// manyAtOnce does something n times, so many at a time.
func manyAtOnce(n, atOnce int, f func(i int)) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(n, atOnce) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				f(i)
			}
		}()
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// cpu is the processor time that the isolator process has used.
func (m *machine) cpu(b *testing.B) time.Duration {
	if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", m.proc.Process.Pid)); err != nil {
		b.Fatal(err)
	}
	var total time.Duration
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", m.proc.Process.Pid))
	for _, t := range threads {
		if raw, err := os.ReadFile(t); err == nil {
			var ns int64
			_, _ = fmt.Sscan(string(raw), &ns)
			total += time.Duration(ns)
		}
	}
	return total
}

// resident is its memory in MiB.
func (m *machine) resident(b *testing.B) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.proc.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	var kB float64
	if _, after, ok := strings.Cut(string(raw), "VmRSS:"); ok {
		_, _ = fmt.Sscan(after, &kB)
	}
	return kB / 1024
}

// onBtrfs puts a btrfs at a directory.
func onBtrfs(b *testing.B, dir string) {
	image := dir + ".img"
	run := func(name string, args ...string) {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			b.Skipf("%s: %v %s", name, err, out)
		}
	}
	run("truncate", "-s", "4G", image)
	run("mkfs.btrfs", "-q", image)
	run("mount", "-o", "loop", image, dir)
	b.Cleanup(func() {
		for range 50 {
			if exec.Command("umount", dir).Run() == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		b.Errorf("%s cannot be unmounted", dir)
	})
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
