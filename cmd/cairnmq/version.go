package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"cairnmq/segment"
)

// version is what the version command says.
type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a changed checkout
	Time     string `json:"revision_time,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Segment  int    `json:"segment_format"`
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:   "version",
		Usage:  "print version, revision, compiler, platform and file formats",
		Flags:  []cli.Flag{jsonFlag()},
		Action: printVersion,
	}
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

func buildVersion() version {
	v := version{Version: "(unknown)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Segment: segment.Version}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func printVersion(c *cli.Context) error {
	v := buildVersion()
	if c.Bool("json") {
		return json.NewEncoder(os.Stdout).Encode(v)
	}
	revision := v.Revision
	switch {
	case revision == "":
		revision = "(unknown)"
	case v.Modified:
		revision += " with changes"
	}
	_, err := fmt.Printf("cairnmq %s\nrevision %s\n%s %s\nsegment format %d\n", v.Version, revision, v.Go, v.Platform, v.Segment)
	return err
}
