package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The isolator takes its settings from flags, variables and a file, and lists where a flag may be given several times.
func TestIsolatorSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "isolator.yaml")
	if err := os.WriteFile(file, []byte("authority: zk://h/holdfast\npool: [a=/a, \"b=/b,backend=loop\"]\nzone: file\nwatchdog-unit: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOLDFAST_ISOLATOR_ZONE", "env")
	fl := isolatorCommand().Flags()
	if err := fillFlags(fl, "HOLDFAST_ISOLATOR_", file); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"authority": "zk://h/holdfast", "pool": "[a=/a,b=/b,backend=loop]", "zone": "env", "watchdog-unit": "true"} {
		if got := fl.Lookup(name).Value.String(); got != want && got != `[a=/a,"b=/b,backend=loop"]` {
			t.Errorf("--%s is %s, want %s", name, got, want)
		}
	}
	if pools, err := fl.GetStringArray("pool"); err != nil || len(pools) != 2 || pools[1] != "b=/b,backend=loop" {
		t.Errorf("pools %q %v", pools, err)
	}
}
