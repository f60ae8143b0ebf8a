package main

import (
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
)

// fillFlags sets the flags that the command line did not, from variables (prefix and the flag's name, upper case with _) and then from
// a YAML file whose keys are the flags' names; file "" is none. An unknown key is an error.
func fillFlags(flags *pflag.FlagSet, prefix, file string) error {
	if file == "" {
		file = os.Getenv(prefix + "CONFIG")
	}
	values, err := readSettings(file)
	if err != nil {
		return err
	}
	for _, k := range sortedSettings(values) {
		if flags.Lookup(k) == nil || k == "config" || k == "help" {
			return console.Usage(fmt.Sprintf("%s: there is no setting %q", file, k))
		}
	}
	var first error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "config" || f.Name == "help" || first != nil {
			return
		}
		variable := prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		given, from := values[f.Name], file+": "+f.Name
		if value := os.Getenv(variable); value != "" {
			given, from = setting{texts: []string{value}}, variable
		}
		if _, several := f.Value.(pflag.SliceValue); given.list && !several {
			first = console.Usage(fmt.Sprintf("%s is a list, and is to be given once", from))
			return
		}
		for _, value := range given.texts {
			if err := flags.Set(f.Name, value); err != nil {
				first = console.Usage(fmt.Sprintf("%s=%q: %v", from, value, err))
			}
		}
	})
	return first
}

// setting is what a file says of one key.
type setting struct {
	texts []string
	list  bool // written as a list, however long
}

func readSettings(file string) (map[string]setting, error) {
	if file == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, console.Usage(fmt.Sprintf("--config: %v", err))
	}
	var all map[string]any
	if err := yaml.UnmarshalStrict(raw, &all); err != nil {
		return nil, console.Usage(fmt.Sprintf("--config %s: %v", file, err))
	}
	out := make(map[string]setting, len(all))
	for k, v := range all {
		var s setting
		values, list := v.([]any)
		if s.list = list; !list && v != nil {
			values = []any{v}
		}
		for _, v := range values {
			switch v.(type) {
			case string, bool, float64, int64:
				s.texts = append(s.texts, fmt.Sprint(v))
			default:
				return nil, console.Usage(fmt.Sprintf("--config %s: %s must be a text, a number, true/false, or a list of them", file, k))
			}
		}
		out[k] = s
	}
	return out, nil
}

func sortedSettings(m map[string]setting) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// newLogger makes the logger of a long-running program, on stderr: lines for people, or JSON for machines.
func newLogger(format, level string) (*zap.Logger, error) {
	l, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, console.Usage(fmt.Sprintf("--log-level is %q: debug, info, warn and error are known", level))
	}
	var enc zapcore.Encoder
	switch format {
	case "console":
		cfg := zap.NewDevelopmentEncoderConfig()
		cfg.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		cfg.EncodeLevel = zapcore.CapitalLevelEncoder
		if term.IsTerminal(int(os.Stderr.Fd())) {
			cfg.EncodeLevel = zapcore.CapitalColorLevelEncoder
		}
		enc = zapcore.NewConsoleEncoder(cfg)
	case "json":
		cfg := zap.NewProductionEncoderConfig()
		cfg.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		enc = zapcore.NewJSONEncoder(cfg)
	default:
		return nil, console.Usage(fmt.Sprintf("--log-format is %q: console and json are known", format))
	}
	return zap.New(zapcore.NewCore(enc, zapcore.Lock(os.Stderr), l)), nil
}
