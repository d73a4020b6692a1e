package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestEveryImportIsAllowedByTheTable(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || rel == "bin" || rel == "examples") {
				return filepath.SkipDir
			}
			return nil
		}
		// Tests may look across rings: they compare an adapter with its port.
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := Violation(filepath.ToSlash(filepath.Dir(rel)), imported); why != "" {
				t.Errorf("%s imports %s: %s", rel, imported, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("only %d files read below %s: the walk is broken", files, root)
	}
}

func TestTableForbidsWhatItSays(t *testing.T) {
	for _, c := range []struct {
		dir, path string
		allowed   bool
	}{
		{"internal/domain/container", "os", false},
		{"internal/domain/container", "time", true},
		{"internal/domain/container", module + "internal/domain/network", true},
		{"internal/domain/container", module + "internal/linux/nft", false},
		{"internal/engine/images", module + "internal/engine/containers", false},
		{"internal/engine/containers", module + "internal/engine/networks", true},
		{"internal/engine/containers", module + "internal/store/records", false},
		{"internal/monitor/protocol", "golang.org/x/sys/unix", false},
		{"internal/monitor/monitorside", module + "internal/domain/container", false},
		{"internal/runtime/lifecycle", module + "internal/monitor/protocol", false},
		{"internal/cli", "github.com/moby/buildkit/client", false},
		{"internal/linux/nft", module + "internal/domain/network", false},
		{"nowhere/at/all", "fmt", false},
	} {
		if why := Violation(c.dir, c.path); (why == "") != c.allowed {
			t.Errorf("%s importing %s: allowed %v, want %v (%s)", c.dir, c.path, why == "", c.allowed, why)
		}
	}
	if _, err := os.Stat("../../go.mod"); err != nil {
		t.Errorf("the module's root is not two folders up: %v", err)
	}
}
