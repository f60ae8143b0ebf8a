package main

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	c, err := parse([]string{"mount", "--volumedriver=fake", "--volumename=vol-0", "--volumeopts=note=a=b,c", "--volumeopts=size=5"})
	if err != nil || c.verb != "mount" || c.driver != "fake" || c.name != "vol-0" || c.options["note"] != "a=b,c" || c.options["size"] != "5" {
		t.Errorf("as Mesos calls it: %+v %v", c, err)
	}
	c, err = parse([]string{"--volumedriver", "fake", "mount", "-volumename", "v", "--explicitCreate", "--timeout=3s"})
	if err != nil || c.verb != "mount" || c.driver != "fake" || !c.explicitCreate || c.timeout.Seconds() != 3 {
		t.Errorf("flags before the verb: %+v %v", c, err)
	}
}

// Whatever the command line, it is understood, refused, or answered by help; an understood one has what its verb needs.
func FuzzParse(f *testing.F) {
	f.Add("mount\x00--volumedriver=a\x00--volumename=b\x00--volumeopts=k=v")
	f.Add("--help")
	f.Add("list\x00--volumedriver\x00x")
	f.Add("mount\x00--volumeopts")
	f.Add("--\x00-\x00=")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := parse(strings.Split(line, "\x00"))
		var help errHelp
		if err != nil || errors.As(err, &help) {
			return
		}
		if _, known := verbs[c.verb]; !known || (!verbs[c.verb].any && c.driver == "") {
			t.Fatalf("%q gives %+v", line, c)
		}
		for k := range c.options {
			if k == "" || strings.Contains(k, "=") {
				t.Fatalf("option %q", k)
			}
		}
	})
}
