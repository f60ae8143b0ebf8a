// Package isolatortest runs isolators for tests: as a process of its own that can be killed at any step, with an authority
// beside it that outlives it.
package isolatortest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/backup"
	"github.com/holdfast-io/holdfast/isolator/dockerplugin"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csi"
	"github.com/holdfast-io/holdfast/isolator/driver/docker"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/fence"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/embedded"
	"github.com/holdfast-io/holdfast/isolator/operation"
	"github.com/holdfast-io/holdfast/isolator/server"
)

// Program is the name under which a test binary runs Main, and WatchdogProgram that for the watchdog process.
const (
	Program         = "test-isolator"
	WatchdogProgram = "test-watchdog"
)

// Main is an isolator process: the parts of `holdfast isolator`, with short waits.
func Main() {
	dir := flag.String("dir", "", "state")
	socket := flag.String("socket", "", "socket")
	authority := flag.String("authority", "", "authority")
	poolDir := flag.String("pool", "", "pool directory")
	var o pool.Options
	flag.StringVar(&o.Backend, "pool-backend", "", "back end of the pool")
	flag.StringVar(&o.FS, "pool-fs", "", "file system of its volumes")
	flag.Int64Var((*int64)(&o.Size), "pool-size", 0, "their size")
	flag.StringVar(&o.Key.File, "pool-key-file", "", "key of encrypted ones")
	plugins := flag.String("plugin-dir", "", "plugin directory")
	boot := flag.String("boot-id", "", "boot id")
	dockerSocket := flag.String("docker-socket", "", "socket of the Docker volume plugin")
	csiFlag := flag.String("csi", "", "a CSI plugin, as holdfast isolator takes it")
	watchdog := flag.String("watchdog", "", "argv of the watchdog, by spaces")
	backups := flag.String("backup-config", "", "repositories for backups")
	flag.Parse()
	o.Dir = *poolDir
	if err := run(*dir, *socket, *authority, o, *plugins, *boot, *dockerSocket, *csiFlag, strings.Fields(*watchdog), *backups); err != nil {
		fmt.Fprintln(os.Stderr, "isolator:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Watchdog is the watchdog process.
func Watchdog() { os.Exit(fence.WatchdogMain(os.Args[1:])) }

func run(dir, socket, authority string, slices pool.Options, plugins, boot, dockerSocket, csiFlag string, watchdog []string, backups string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := zap.NewDevelopmentConfig()
	c.DisableStacktrace = true
	log, err := c.Build()
	if err != nil {
		return err
	}
	registers, err := embedded.Dial(authority)
	if err != nil {
		return err
	}
	defer registers.Close()
	var drivers []driver.Driver
	if slices.Dir != "" {
		slices.Mounts, slices.Scope = isolator.MountsDir(dir), driver.ScopeCluster
		p, err := pool.Open(slices)
		if err != nil {
			return err
		}
		drivers = append(drivers, p)
	}
	if csiFlag != "" {
		o, err := csi.ParseFlag(csiFlag, dir)
		if err != nil {
			return err
		}
		o.Mounts, o.Node, o.Log, o.BootID = isolator.MountsDir(dir), "test", log, boot
		d, err := csi.New(o)
		if err != nil {
			return err
		}
		drivers = append(drivers, d)
	}
	var repositories operation.Repositories
	if backups != "" {
		c, err := backup.Read(backups)
		if err != nil {
			return err
		}
		if repositories, err = backup.Open(c, filepath.Join(dir, "restic")); err != nil {
			return err
		}
	}
	service, err := isolator.Open(isolator.Options{
		Repositories: repositories,
		Dir:          dir, Authority: lease.New(registers, lease.Options{}), Drivers: drivers,
		Resolve: func(name string) (driver.Driver, error) {
			return docker.New(docker.Options{Name: name, Dirs: docker.Dirs{Sockets: []string{plugins}, Specs: []string{plugins}}, ReadLimit: time.Second, NoIsolators: true})
		},
		Timings: lease.EmbeddedTimings(), Clock: lease.Monotonic(), WatchdogClock: unix.CLOCK_MONOTONIC, BootID: boot, Log: log, Watchdog: watchdog,
		Limits:   isolator.Limits{UsersMount: 2 * time.Second, UsersLeave: time.Second, RetryMin: 50 * time.Millisecond, RetryMax: 500 * time.Millisecond, Driver: 3 * time.Second},
		Describe: isolator.Describe{Hostname: "test", Version: "test"},
	})
	if err != nil {
		return err
	}
	defer service.Close()
	srv, err := server.Listen(service, server.Options{Socket: socket, Group: -1, Log: log})
	if err != nil {
		return err
	}
	served := make(chan error, 2)
	go func() { served <- srv.Serve(ctx) }()
	if dockerSocket == "" {
		served <- nil
	} else {
		face, err := server.Listen(service, server.Options{Socket: dockerSocket, Group: -1, Log: log, Remove: true,
			Handler: dockerplugin.Handler(service, dockerplugin.Options{Dir: filepath.Join(dir, "docker"), Log: log})})
		if err != nil {
			return err
		}
		go func() { served <- face.Serve(ctx) }()
	}
	err = service.Run(ctx)
	stop()
	<-served
	<-served
	return err
}
