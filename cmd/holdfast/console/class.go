package console

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

func classCommand(c *Console) *cobra.Command {
	return Verbs("class", "Classes of volumes: list, show, put, remove", classList(c), classShow(c), classPut(c), classRemove(c))
}

func classList(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List classes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.Client().Classes(cmd.Context())
			if err != nil {
				return err
			}
			c.printClasses(list, nonNil(list))
			return nil
		},
	}
}

func classShow(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one class", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			one, err := c.Client().Class(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			c.printClasses([]client.Class{*one}, one)
			return nil
		},
	}
}

// printClasses prints a table, or v for programs.
func (c *Console) printClasses(list []client.Class, v any) {
	if c.JSON() {
		c.Encode(c.Out, v)
		return
	}
	t := Table{Head: []string{"CLASS", "DRIVER", "SIZE", "POLICY", "RECLAIM", "ENCRYPT", "ZONES", "OPTIONS"}}
	for _, k := range list {
		var options []string
		for _, name := range slices.Sorted(maps.Keys(k.Options)) {
			options = append(options, name+"="+k.Options[name])
		}
		t.Add(k.Name, k.Driver, dash(k.Size), dash(k.Policy), k.Reclaim, yes(k.Encrypt), dash(strings.Join(k.Zones, ",")), dash(strings.Join(options, ",")))
	}
	t.Print(c.Out)
}

func classPut(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "put NAME FILE", Short: "Make or replace a class from a YAML or JSON file (-: standard input)", Args: cobra.ExactArgs(2),
		Long: "Makes or replaces a class. What there is keeps what it has: a class is copied into an app when the app is changed.\n\n" +
			"Fields: driver (needed), options, size (of volumes that ask for none), policy (lease or operator), zones, reclaim (keep or delete), encrypt.",
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := c.readAny(args[1])
			if err != nil {
				return err
			}
			body, err := yaml.YAMLToJSON(raw)
			if err != nil {
				return fault.Wrap(fault.Invalid, err, "read %s", args[1])
			}
			r, err := c.Client().PutClass(cmd.Context(), args[0], json.RawMessage(body))
			if err != nil {
				return err
			}
			c.Warn(r)
			fmt.Fprintf(c.Err, "class %s is stored\n", args[0])
			return nil
		},
	}
}

func classRemove(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove a class that no app names", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := c.Client().RemoveClass(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(c.Err, "class %s is removed\n", args[0])
			return nil
		},
	}
}

// readAny reads a file of any kind, or standard input for "-".
func (c *Console) readAny(name string) (raw []byte, err error) {
	if name == "-" {
		raw, err = io.ReadAll(io.LimitReader(c.In, 64<<20))
	} else {
		raw, err = os.ReadFile(name)
	}
	return raw, fault.Wrap(fault.Invalid, err, "read %s", name)
}
