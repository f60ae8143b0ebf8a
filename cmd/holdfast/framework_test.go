package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/holdfast-io/holdfast/internal/fault"
)

func TestFrameworkSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("master: from-file:1\nrole: file-role\nfailover-timeout: 1h\ngpu: true\nname: file-name\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOLDFAST_FRAMEWORK_ROLE", "env-role")
	t.Setenv("HOLDFAST_FRAMEWORK_NAME", "env-name")
	t.Setenv("HOLDFAST_FRAMEWORK_CONFIG", file)
	cmd := frameworkCommand()
	f := cmd.Flags()
	if err := cmd.ParseFlags([]string{"--name", "flag-name"}); err != nil {
		t.Fatal(err)
	}
	if err := fillFlags(f, "HOLDFAST_FRAMEWORK_", ""); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"name": "flag-name", "role": "env-role", "master": "from-file:1", "failover-timeout": "1h0m0s", "gpu": "true", "listen": "127.0.0.1:8080"} {
		if got := f.Lookup(name).Value.String(); got != want {
			t.Errorf("--%s is %q, want %q", name, got, want)
		}
	}
}

func TestBadFrameworkSettings(t *testing.T) {
	dir := t.TempDir()
	for text, part := range map[string]string{"masterr: x": `"masterr"`, "failover-timeout: soon": "soon", "role: [a]": "role", "a: b\na: c": "a", "\t": "yaml", "config: x": "config"} {
		file := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := fillFlags(frameworkCommand().Flags(), "HOLDFAST_FRAMEWORK_TEST_", file); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := fillFlags(frameworkCommand().Flags(), "X_", filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there is accepted")
	}
}

func TestFrameworkArguments(t *testing.T) {
	base := []string{"framework", "--master", "127.0.0.1:1", "--authority", "unix:///nowhere.sock", "--listen", "127.0.0.1:0", "--log-level", "error", "--dir", t.TempDir()}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	notDir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		text string
	}{
		"nothing":       {[]string{"framework"}, fault.ExitUsage, "--master"},
		"argument":      {append(base, "extra"), fault.ExitUsage, "extra"},
		"zk":            {append(base, "--master", "zk://u:geheim@a"), fault.ExitFailed, "path"},
		"no CA":         {append(base, "--master-ca-file", "/does/not/exist"), fault.ExitFailed, "/does/not/exist"},
		"star role":     {append(base, "--role", "*"), fault.ExitUsage, "--role"},
		"policy":        {append(base, "--default-policy", "hope"), fault.ExitUsage, "hope"},
		"grade":         {append(base, "--min-grade", "none"), fault.ExitUsage, "none"},
		"secret alone":  {append(base, "--secret-file", "/does/not/exist/x"), fault.ExitFailed, "/does/not/exist/x"},
		"no secret":     {append(base, "--principal", "p", "--secret-file", "/does/not/exist"), fault.ExitFailed, "/does/not/exist"},
		"port in use":   {append(base, "--listen", busy.Addr().String()), fault.ExitUnavailable, "in use"},
		"no directory":  {append(base, "--dir", notDir), fault.ExitUnavailable, notDir},
		"cluster":       {append(base, "--cluster", "../x"), fault.ExitFailed, "../x"},
		"log format":    {append(base, "--log-format", "xml"), fault.ExitUsage, "xml"},
		"log level":     {append(base, "--log-level", "loud"), fault.ExitUsage, "loud"},
		"lease wait":    {append(base, "--lease-wait", "-1s"), fault.ExitFailed, "W = -1s"},
		"clock error":   {append(base, "--lease-clock-error", "0.9"), fault.ExitFailed, "rho = 0.9"},
		"tcp authority": {append(base, "--authority", "tcp://x:1"), fault.ExitFailed, "tcp://x:1"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errOut strings.Builder
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if code := execute(ctx, c.args, strings.NewReader(""), &out, &errOut); code != c.code || !strings.Contains(errOut.String(), c.text) {
				t.Errorf("exit %d, %q; want %d and %q", code, errOut.String(), c.code, c.text)
			}
			if strings.Contains(errOut.String(), "geheim") {
				t.Error("a password is shown")
			}
		})
	}
}

// TestFrameworkWithoutAnybody runs the program with neither master nor authority: it serves, says where, and ends when told.
func TestFrameworkWithoutAnybody(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	var out, errOut strings.Builder
	go func() {
		code <- execute(ctx, []string{"framework", "--master", "127.0.0.1:1", "--authority", "unix://" + dir + "/nowhere.sock", "--listen", "127.0.0.1:0", "--dir", dir, "--log-level", "error"}, strings.NewReader(""), &out, &errOut)
	}()
	var address string
	for end := time.Now().Add(5 * time.Second); address == "" && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		raw, _ := os.ReadFile(filepath.Join(dir, "listen"))
		address = strings.TrimSpace(string(raw))
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("the address in <dir>/listen: %v", err)
	}
	conn.Close()
	cancel()
	select {
	case c := <-code:
		if c != 0 {
			t.Errorf("exit %d: %s", c, errOut.String())
		}
	case <-time.After(5 * time.Second):
		t.Fatal("does not end")
	}
}

func TestListeningToStrangersIsSaidLoudly(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	if err := announce(t.TempDir(), &net.TCPAddr{IP: net.IPv4zero, Port: 80}, doorFlags{}, zap.New(core)); err != nil {
		t.Fatal(err)
	}
	if logs.FilterLevelExact(zapcore.WarnLevel).Len() != 1 {
		t.Error("no warning")
	}
	core, logs = observer.New(zapcore.InfoLevel)
	if err := announce(t.TempDir(), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, doorFlags{}, zap.New(core)); err != nil || logs.FilterLevelExact(zapcore.WarnLevel).Len() != 0 {
		t.Error("a warning for loopback", err)
	}
}

func TestAddressWithoutSecret(t *testing.T) {
	for in, want := range map[string]string{"unix:///run/x.sock": "unix:///run/x.sock", "zk://u:p@h1:2181,h2/x": "zk://h1:2181,h2/x", "zk://u:p@ss@h/x": "zk://h/x", "/run/x@y": "/run/x@y"} {
		if got := withoutSecret(in); got != want {
			t.Errorf("%s is shown as %s", in, got)
		}
	}
}

func TestSecretFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	for in, want := range map[string]string{"s3cret\n": "s3cret", "s3cret\r\n": "s3cret", " s p ": " s p ", "\n": ""} {
		if err := os.WriteFile(file, []byte(in), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readSecret(file)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}
