package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// duo is a pod of two containers that share an external volume and a directory: one writes its version, the other copies it.
func duo(version string) string {
	return fmt.Sprintf(`{"id":"/duo","scaling":{"kind":"fixed","instances":2},"environment":{"V":%q},
	"containers":[
		{"name":"writer","resources":{"cpus":0.02,"mem":8},"exec":{"command":{"shell":"echo $V >> data/versions; echo $HOLDFAST_INSTANCE > shared/number; exec sleep 1000"}},
		 "volumeMounts":[{"name":"data","mountPath":"data"},{"name":"shared","mountPath":"shared"}]},
		{"name":"reader","resources":{"cpus":0.02,"mem":8},"exec":{"command":{"shell":"until test -s in/number && grep -q $V d/versions; do sleep 0.1; done; cp in/number d/number; touch ok; exec sleep 1000"}},
		 "healthCheck":{"exec":{"command":{"shell":"test -e ok"}},"intervalSeconds":1,"timeoutSeconds":0,"delaySeconds":0,"gracePeriodSeconds":60},
		 "volumeMounts":[{"name":"data","mountPath":"d"},{"name":"shared","mountPath":"in"}]}],
	"volumes":[{"name":"shared"},{"name":"data","external":{"name":"duo","provider":"dvdi","size":1,"options":{"dvdi/driver":"pool"}}}]}`, version)
}

type podState struct {
	Status    string
	Instances []struct {
		ID, Status, SpecReference string
		Containers                []struct{ Name, Status, ContainerID string }
	}
}

// TestHeavyPod runs a pod whose containers share a volume, through an update, a kill, the loss of a machine, and its deletion.
func TestHeavyPod(t *testing.T) {
	heavy.Require(t, heavy.Root)
	c := devtest.Start(t)
	stable := func(what, version string) (s podState) {
		t.Helper()
		devtest.Await(t, what, 90*time.Second, func(context.Context) (bool, string, error) {
			s = podState{}
			call(t, http.MethodGet, c.URL+"/v2/pods/duo::status", "", &s)
			ok := s.Status == "STABLE" && len(s.Instances) == 2
			for _, i := range s.Instances {
				ok = ok && i.Status == "STABLE" && strings.HasSuffix(i.SpecReference, version) && len(i.Containers) == 2
				for _, k := range i.Containers {
					ok = ok && k.Status == "TASK_RUNNING"
				}
			}
			return ok, fmt.Sprintf("%+v", s), nil
		})
		return s
	}
	var def struct{ Version string }
	call(t, http.MethodPost, c.URL+"/v2/pods", duo("one"), &def)
	first := stable("the pod runs", def.Version)
	var apps struct{ Apps []any }
	if call(t, http.MethodGet, c.URL+"/v2/apps", "", &apps); len(apps.Apps) != 0 {
		t.Errorf("a pod among the apps: %v", apps.Apps)
	}
	call(t, http.MethodPut, c.URL+"/v2/pods/duo", duo("two"), &def)
	second := stable("the pod is updated", def.Version)
	if a, b := first.Instances[0].Containers[0].ContainerID, second.Instances[0].Containers[0].ContainerID; a == b {
		t.Errorf("%s was not started anew", a)
	}
	claims, err := c.API.Claims(t.Context())
	if err != nil || len(claims) != 2 {
		t.Errorf("one claim for each instance, got %d: %v", len(claims), err)
	}
	call(t, http.MethodDelete, c.URL+"/v2/pods/duo::instances/"+second.Instances[1].ID, "", nil)
	devtest.Await(t, "the instance runs again", 60*time.Second, func(context.Context) (bool, string, error) {
		var s podState
		call(t, http.MethodGet, c.URL+"/v2/pods/duo::status", "", &s)
		ok := s.Status == "STABLE" && len(s.Instances) == 2 && len(s.Instances[1].Containers) == 2 && s.Instances[1].Containers[0].ContainerID != second.Instances[1].Containers[0].ContainerID
		return ok, fmt.Sprintf("%+v", s), nil
	})
	// The machine of an instance is lost: the instance moves with its volume, both containers of it.
	before, err := c.API.Instance(t.Context(), "duo.0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Control.Agent(t.Context(), before.Hostname, "kill", dev.Order{}); err != nil {
		t.Fatal(err)
	}
	if now := c.Relaunched(*before); now.Hostname == before.Hostname {
		t.Errorf("it runs again on %s, which is dead", now.Hostname)
	}
	call(t, http.MethodDelete, c.URL+"/v2/pods/duo", "", nil)
	nothingLeft(t, c, 2)
}
