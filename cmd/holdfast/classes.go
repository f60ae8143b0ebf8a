package main

import (
	"context"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/api"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// readClasses reads the file of --classes, "" for none.
func readClasses(name string) ([]*state.Class, error) {
	if name == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the classes")
	}
	classes, err := api.ReadClasses(raw)
	return classes, fault.Op(err, "read %s", name)
}

// seedClasses makes the classes that are not there yet, as soon as somebody leads. It ends when that is done, or with ctx.
func seedClasses(ctx context.Context, core *framework.Framework, classes []*state.Class, log *zap.Logger) {
	for _, c := range classes {
		for {
			_, err := core.Do(ctx, scheduler.PutClass{Class: c, OnlyNew: true})
			if err == nil || ctx.Err() != nil {
				break
			}
			if !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown) {
				log.Warn("class not made", zap.String("class", c.Name), zap.Error(err))
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}
