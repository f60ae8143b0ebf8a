package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// peersConfig is every setting of `holdfast peers`.
type peersConfig struct {
	app, file, signal, exec string
	pid                     int
	watch, yield, text      bool
	task                    string // the run that it works for
	number                  syscall.Signal
}

func peersCommand(c *Console) *cobra.Command {
	var cfg peersConfig
	cmd := &cobra.Command{
		Use: "peers [APP]", Short: "Show the instances of an app to each other, or keep a file of them beside a task",
		Long: "Shows number, address, ports, health and part of every instance of an app; inside a task, of its own app (HOLDFAST_APP_ID).\n" +
			"With --file it writes them there, whole at any moment: JSON, or with -o text one line each:\n" +
			"  number instance address ports state healthy|unhealthy primary|-\n" +
			"With --watch it goes on for as long as it is let, also while the framework is away, and after each change sends --signal to --pid or runs\n" +
			"--exec with sh, which has HOLDFAST_PRIMARY (true or false: is this task the primary), HOLDFAST_TERM and HOLDFAST_PEERS (the file).\n" +
			"With --yield a task that is the primary no more says so once --exec has succeeded, which lets another be named before it ends.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.app = os.Getenv("HOLDFAST_APP_ID")
			if len(args) == 1 {
				cfg.app = args[0]
			}
			cfg.task = os.Getenv("MESOS_TASK_ID")
			if err := cfg.check(); err != nil {
				return err
			}
			cfg.app = absoluteID(cfg.app)
			cfg.text = cmd.Flags().Changed("output") && !c.JSON()
			if cfg.watch {
				return c.watchPeers(cmd.Context(), &cfg)
			}
			p, err := c.Client().Peers(cmd.Context(), cfg.app, "", 0)
			if err != nil {
				return err
			}
			if cfg.file != "" {
				return replaceFile(cfg.file, peersFile(p, cfg.text))
			}
			c.printPeers(p)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.file, "file", "", "write them to this file")
	f.BoolVar(&cfg.watch, "watch", false, "keep the file as things are, until killed")
	f.StringVar(&cfg.signal, "signal", "", "with --watch: signal for --pid after each change, such as HUP")
	f.IntVar(&cfg.pid, "pid", 0, "process for --signal")
	f.StringVar(&cfg.exec, "exec", "", "with --watch: command for sh after each change")
	f.BoolVar(&cfg.yield, "yield", false, "with --exec: give the part of the primary up once the command has been told and has succeeded")
	return cmd
}

var signals = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	"CONT": syscall.SIGCONT, "WINCH": syscall.SIGWINCH}

func (p *peersConfig) check() error {
	p.number = signals[strings.TrimPrefix(strings.ToUpper(p.signal), "SIG")]
	switch {
	case strings.Trim(p.app, "/") == "":
		return Usage("give an app: HOLDFAST_APP_ID is not set")
	case p.watch && p.file == "" && p.exec == "":
		return Usage("--watch needs --file or --exec")
	case !p.watch && (p.signal != "" || p.exec != "" || p.yield):
		return Usage("--signal, --exec and --yield need --watch")
	case p.signal != "" && p.number == 0:
		return Usage(fmt.Sprintf("--signal is %q: HUP, INT, TERM, QUIT, USR1, USR2, CONT and WINCH are known", p.signal))
	case (p.signal == "") != (p.pid == 0) || p.pid < 0 || p.pid == 1:
		return Usage("--signal and --pid go together, and --pid is above 1")
	case p.yield && (p.exec == "" || p.task == ""):
		return Usage("--yield needs --exec, and a task to speak for (MESOS_TASK_ID)")
	}
	return nil
}

func (c *Console) printPeers(p *client.Peers) {
	if c.JSON() {
		c.Encode(c.Out, p)
		return
	}
	t := Table{Head: []string{"INSTANCE", "STATE", "HEALTHY", "ADDRESS", "PORTS", "PRIMARY"}}
	for _, i := range p.Peers {
		part := ""
		if i.Primary {
			part = fmt.Sprintf("term %d", p.Term)
		}
		t.Add(i.Instance, i.State, fmt.Sprint(i.Healthy), dash(i.Address), dash(portList(i)), dash(part))
	}
	t.Print(c.Out)
	if p.Why != "" {
		fmt.Fprintf(c.Out, "no primary: %s\n", p.Why)
	}
}

func portList(p client.Peer) string {
	var list []string
	for _, port := range p.Ports {
		list = append(list, fmt.Sprint(port.Port))
	}
	return strings.Join(list, ",")
}

// peersFile is what a file holds: JSON unless text was asked for.
func peersFile(p *client.Peers, text bool) []byte {
	if !text {
		raw, _ := json.MarshalIndent(p, "", "  ") // of plain data: cannot fail
		return append(raw, '\n')
	}
	var b bytes.Buffer
	hyphen := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	for _, i := range p.Peers {
		health, part := "unhealthy", "-"
		if i.Healthy {
			health = "healthy"
		}
		if i.Primary {
			part = "primary"
		}
		fmt.Fprintln(&b, i.Ordinal, i.Instance, hyphen(i.Address), hyphen(portList(i)), i.State, health, part)
	}
	return b.Bytes()
}

// replaceFile writes a file so that whoever reads it finds the old content or the new.
func replaceFile(name string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(name), ".peers-")
	if err == nil {
		_, err = temp.Write(content)
		if err == nil {
			err = temp.Chmod(0o644)
		}
		if cerr := temp.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = os.Rename(temp.Name(), name)
		}
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}
	return fault.Wrap(fault.Unavailable, err, "write %s", name)
}

// The times of a watch: how long one request waits for a change, and the pause after one that failed.
const (
	peersWait     = 50 * time.Second
	peersRetryMin = 200 * time.Millisecond
	peersRetryMax = 5 * time.Second
)

// watchPeers follows an app until ctx ends. While the framework is away the file stays as it is. Only an app that is not there ends it.
func (c *Console) watchPeers(ctx context.Context, cfg *peersConfig) error {
	api, index, pause, said := c.Client(), "", peersRetryMin, ""
	told := ""    // the index that everybody was told of
	given := "\n" // the part that was given up: task and term
	for ctx.Err() == nil {
		p, err := api.Peers(ctx, cfg.app, index, peersWait)
		if err == nil && p.Index != told {
			if err = c.tellPeers(ctx, cfg, p); err == nil {
				told = p.Index
			}
		}
		if err == nil && cfg.yield && p.Retiring != nil && p.Retiring.Task == cfg.task && given != fmt.Sprint(p.Index, p.Term) {
			if _, err = api.YieldPrimary(ctx, cfg.app, cfg.task, p.Term); err == nil || fault.Is(err, fault.Conflict) {
				given, err = fmt.Sprint(p.Index, p.Term), nil
			}
		}
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			index, pause, said = p.Index, peersRetryMin, ""
			continue
		}
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
			return err
		}
		if err.Error() != said {
			said = err.Error()
			fmt.Fprintf(c.Err, "holdfast peers: %v; the file stays as it is, and it is tried again\n", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
		pause = min(2*pause, peersRetryMax)
	}
	return nil
}

// tellPeers writes the file, and then tells the process.
func (c *Console) tellPeers(ctx context.Context, cfg *peersConfig, p *client.Peers) error {
	if cfg.file != "" {
		if err := replaceFile(cfg.file, peersFile(p, cfg.text)); err != nil {
			return err
		}
	}
	if cfg.number != 0 {
		if err := syscall.Kill(cfg.pid, cfg.number); err != nil && err != syscall.ESRCH {
			return fault.Wrap(fault.Unavailable, err, "signal process %d", cfg.pid)
		}
	}
	if cfg.exec == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", cfg.exec)
	cmd.Stdout, cmd.Stderr = c.Out, c.Err
	cmd.Env = append(os.Environ(), fmt.Sprintf("HOLDFAST_PRIMARY=%t", p.Primary != nil && cfg.task != "" && p.Primary.Task == cfg.task),
		fmt.Sprintf("HOLDFAST_TERM=%d", p.Term), "HOLDFAST_PEERS="+cfg.file)
	if err := cmd.Run(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "--exec")
	}
	return nil
}
