package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/varve-io/varve"
	root   = "../.."

	maxFile     = 600 // lines of a production file
	maxFunction = 100 // lines of a production function
	maxDaemon   = 850 // lines of code in pkg/daemon, so that it stays plumbing
	maxMap      = 200 // lines of ARCHITECTURE.md
)

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	GoFiles    []string
	Imports    []string
}

// key is the package's name in the plan.
func (p pkg) key() string { return key(p.ImportPath) }

func key(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module+"/"), "pkg/")
}

// ours returns the keys of the imported packages of this module.
func (p pkg) ours() []string {
	var keys []string
	for _, i := range p.Imports {
		if strings.HasPrefix(i, module+"/") {
			keys = append(keys, key(i))
		}
	}
	return keys
}

// servesTests says whether the package may be imported by tests alone.
func servesTests(key string) bool {
	return strings.HasSuffix(key, "test") || key == "internal/golden"
}

// packages lists the packages of the product's module, in its own words.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Dir,GoFiles,Imports", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr.String())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("decode the output of go list: %v", err)
		}
		all = append(all, p)
	}
}

func TestEveryPackageIsInThePlan(t *testing.T) {
	rules := plan()
	for _, p := range packages(t) {
		if _, ok := rules[p.key()]; !ok {
			t.Errorf("%s has no row in plan() (floors_test.go): say on which floor it stands and what it may import", p.ImportPath)
		}
	}
}

func TestThePlanGoesDown(t *testing.T) {
	rules, exceptions := plan(), sideways()
	used := map[string]bool{}
	for from, r := range rules {
		for to := range strings.FieldsSeq(r.may) {
			arrow := from + " → " + to
			target, ok := rules[to]
			switch {
			case !ok:
				t.Errorf("%s: the target has no row in plan()", arrow)
			case target.floor < r.floor:
			case exceptions[arrow] == "":
				t.Errorf("%s goes from floor %d to floor %d and is not listed in sideways()", arrow, r.floor, target.floor)
			}
			used[arrow] = true
		}
	}
	for arrow := range exceptions {
		if !used[arrow] {
			t.Errorf("%s is listed in sideways() but no row of plan() has it", arrow)
		}
	}
}

func TestImportsStayInsideThePlan(t *testing.T) {
	rules := plan()
	for _, p := range packages(t) {
		if servesTests(p.key()) {
			continue
		}
		may := strings.Fields(rules[p.key()].may)
		for _, to := range p.ours() {
			switch {
			case servesTests(to):
				t.Errorf("%s imports %s outside its tests", p.key(), to)
			case !slices.Contains(may, to):
				t.Errorf("%s imports %s; it may import: %s", p.key(), to, strings.Join(may, ", "))
			}
		}
	}
}

func TestPackageNamesSayOneThing(t *testing.T) {
	swamp := regexp.MustCompile(`(util|utils|common|helper|helpers|misc|shared|types)$`)
	for _, p := range packages(t) {
		if swamp.MatchString(p.Name) || swamp.MatchString(p.ImportPath) {
			t.Errorf("%s: name the concept it holds", p.ImportPath)
		}
	}
}

// The algorithms of floors 2 and 3 are functions of their arguments.
func TestTheMiddleIsPure(t *testing.T) {
	impure := regexp.MustCompile(`^(os|os/.*|net|net/.*|log|log/.*|math/rand|math/rand/.*|github.com/prometheus/client_golang/.*|github.com/thanos-io/objstore.*)$`)
	rules := plan()
	for _, p := range packages(t) {
		if floor := rules[p.key()].floor; floor != formats && floor != pure {
			continue
		}
		for _, i := range p.Imports {
			if impure.MatchString(i) {
				t.Errorf("%s imports %s; it has no disk, network, logger, metric or chance", p.key(), i)
			}
		}
		for _, at := range selectors(t, p, func(x, sel string) bool {
			return x == "time" && slices.Contains([]string{"Now", "Since", "Until", "After", "Tick"}, sel)
		}) {
			t.Errorf("%s: a clock below floor 4; take the time as an argument", at)
		}
	}
}

// Packages that only read are handed readers, so that the compiler proves it.
func TestReadersCannotWrite(t *testing.T) {
	writing := map[string][]string{
		"objstore": {"Bucket", "InstrumentedBucket"},
		"bucket":   {"Bucket", "Versioned", "Open"},
	}
	for _, p := range packages(t) {
		if !slices.Contains([]string{"store", "fetcher", "pagecache", "blockindex"}, p.key()) {
			continue
		}
		for _, at := range selectors(t, p, func(x, sel string) bool { return slices.Contains(writing[x], sel) }) {
			t.Errorf("%s: %s reads; take an objstore.BucketReader", at, p.key())
		}
	}
}

func TestBannedModulesStayBehindTheAdapter(t *testing.T) {
	for _, p := range packages(t) {
		for _, i := range p.Imports {
			banned := strings.HasPrefix(i, "github.com/go-kit/log") || i == "github.com/pkg/errors"
			if banned && p.key() != "bucket" {
				t.Errorf("%s imports %s; use log/slog, errors and fmt (objstore's adapter is in pkg/bucket)", p.key(), i)
			}
		}
	}
}

func TestFilesAndFunctionsStaySmall(t *testing.T) {
	for _, p := range packages(t) {
		for name, f := range parse(t, p) {
			if ast.IsGenerated(f.syntax) {
				continue
			}
			if n := f.set.File(f.syntax.Pos()).LineCount(); n > maxFile {
				t.Errorf("%s has %d lines, the ceiling is %d", name, n, maxFile)
			}
			for _, d := range f.syntax.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				if n := f.set.Position(fn.End()).Line - f.set.Position(fn.Pos()).Line + 1; n > maxFunction {
					t.Errorf("%s: %s has %d lines, the ceiling is %d", name, fn.Name.Name, n, maxFunction)
				}
			}
		}
	}
}

func TestDaemonStaysPlumbing(t *testing.T) {
	for _, p := range packages(t) {
		if p.key() != "daemon" {
			continue
		}
		n := 0
		for name := range parse(t, p) {
			n += linesOfCode(t, filepath.Join(root, name))
		}
		if n > maxDaemon {
			t.Errorf("pkg/daemon has %d lines of code, the ceiling is %d: what of it knows a domain?", n, maxDaemon)
		}
	}
}

// linesOfCode counts the lines that hold more than blanks and comments.
func linesOfCode(t *testing.T, path string) int {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	f := set.AddFile(path, -1, len(src))
	var s scanner.Scanner
	s.Init(f, src, nil, 0)
	lines := map[int]bool{}
	for {
		pos, tok, text := s.Scan()
		if tok == token.EOF {
			return len(lines)
		}
		if tok == token.SEMICOLON && text == "\n" {
			continue
		}
		first := f.Line(pos)
		for l := range strings.Count(text, "\n") + 1 {
			lines[first+l] = true
		}
	}
}

func TestEveryPackageHasADocComment(t *testing.T) {
	for _, p := range packages(t) {
		documented := len(p.GoFiles) == 0
		for _, f := range parse(t, p) {
			documented = documented || f.syntax.Doc != nil || ast.IsGenerated(f.syntax)
		}
		if !documented {
			t.Errorf("%s has no package comment: its one job, its floor, its invariants", p.ImportPath)
		}
	}
}

// The end-to-end module sees of the product only what travels on the wire.
func TestEndToEndSpeaksOnlyTheWire(t *testing.T) {
	const e2e = module + "/e2e/"
	err := filepath.WalkDir(filepath.Join(root, "e2e"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			to := strings.Trim(i.Path.Value, `"`)
			if strings.HasPrefix(to, module+"/") && !strings.HasPrefix(to, e2e) && key(to) != "storeapi/storepb" {
				t.Errorf("%s imports %s; of the product it may import storeapi/storepb alone", path, to)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// file is one parsed production file.
type file struct {
	set    *token.FileSet
	syntax *ast.File
}

// parse returns the production files of a package by path from the root.
func parse(t *testing.T, p pkg) map[string]file {
	t.Helper()
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]file{}
	for _, name := range p.GoFiles {
		path := filepath.Join(p.Dir, name)
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if errors.Is(err, os.ErrNotExist) {
			continue // renamed since go list ran
		}
		if err != nil {
			t.Errorf("parse: %v", err)
			continue
		}
		short, err := filepath.Rel(top, path)
		if err != nil {
			t.Fatal(err)
		}
		files[short] = file{set, syntax}
	}
	return files
}

// selectors returns the positions of the expressions x.sel that match.
func selectors(t *testing.T, p pkg, match func(x, sel string) bool) []string {
	t.Helper()
	var at []string
	for name, f := range parse(t, p) {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && match(x.Name, s.Sel.Name) {
				pos := f.set.Position(s.Pos())
				pos.Filename = name
				at = append(at, pos.String())
			}
			return true
		})
	}
	return at
}
