package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/packaging/dcos"
)

// Every setting of the framework can be given to the DC/OS package, and the package gives nothing that the framework does not know.
func TestDCOSPackageCoversEveryFlag(t *testing.T) {
	p, err := dcos.Open("1.0", "http://assets.example")
	if err != nil {
		t.Fatal(err)
	}
	// What the package decides itself: where the task listens and keeps files, that settings come as variables, and that Admin Router speaks http to it.
	own := map[string]bool{"tls-cert-file": true, "tls-key-file": true, "listen": true, "dir": true, "config": true, "help": true}
	options := map[string]string{}
	for group, v := range p.Config["properties"].(map[string]any) {
		for name := range v.(map[string]any)["properties"].(map[string]any) {
			if group == "service" && !strings.HasPrefix(name, "log-") {
				continue // about the task, not about the framework
			}
			if other, twice := options[name]; twice {
				t.Errorf("option %s is in the groups %s and %s", name, group, other)
			}
			options[name] = group
		}
	}
	flags := frameworkCommand().LocalNonPersistentFlags()
	flags.VisitAll(func(f *pflag.Flag) {
		variable := `"HOLDFAST_FRAMEWORK_` + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) + `"`
		switch {
		case own[f.Name]:
		case options[f.Name] == "":
			t.Errorf("packaging/dcos/config.json has no option for --%s", f.Name)
		case !strings.Contains(p.Template, variable):
			t.Errorf("packaging/dcos/marathon.json.mustache does not pass %s on", variable)
		}
	})
	fromSecrets := map[string]bool{"secret": true, "consul-token-secret": true} // DC/OS secrets, passed as files
	for name, group := range options {
		if flags.Lookup(name) == nil && !fromSecrets[name] {
			t.Errorf("option %s.%s is no flag of holdfast framework", group, name)
		}
	}
}
