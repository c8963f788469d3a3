package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cairnmq/mqtt/mqtttest"
)

// Where the product is; bench knows nothing of it, and this program cites nothing.
var sourceDirs = []string{"cmd", "mqtt", "storage", "segment", "index"}

// scan looks for citations in all Go files.
func (m *matrix) scan(root string) error {
	for _, dir := range sourceDirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return m.scanFile(filepath.ToSlash(name), text)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// scanFile takes in the citations of one file: of a test file those in functions that call Proves, of any other file
// all.
func (m *matrix) scanFile(name string, text []byte) error {
	if !mqtttest.Requirement.Match(text) {
		return nil
	}
	if dir := filepath.ToSlash(filepath.Dir(name)); dir == "mqtt/conformance/spec" || dir == "mqtt/mqtttest" {
		return nil // they speak of numbers
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	isTest := strings.HasSuffix(name, "_test.go")
	for i, line := range strings.Split(string(text), "\n") {
		for _, number := range mqtttest.Requirement.FindAllString(line, -1) {
			r := m.by[number]
			p := place{file: name, line: i + 1}
			if r == nil {
				m.wrong = append(m.wrong, lines([]place{p})+": "+number+" does not exist")
				continue
			}
			if p.in = around(files, file, p.line); !isTest && (len(r.code) == 0 || r.code[len(r.code)-1] != p) {
				r.code = append(r.code, p)
			}
		}
	}
	if isTest {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				m.scanTest(filepath.ToSlash(filepath.Dir(name)), f)
			}
		}
	}
	return nil
}

// around names the declaration that a line belongs to, with its comment.
func around(files *token.FileSet, file *ast.File, line int) string {
	for _, d := range file.Decls {
		from, to := d.Pos(), d.End()
		var doc *ast.CommentGroup
		name := ""
		switch d := d.(type) {
		case *ast.FuncDecl:
			name, doc = d.Name.Name, d.Doc
			if d.Recv != nil {
				name = receiver(d.Recv.List[0].Type) + "." + name
			}
		case *ast.GenDecl:
			doc = d.Doc
			name = d.Tok.String()
			if len(d.Specs) > 0 {
				switch s := d.Specs[0].(type) {
				case *ast.TypeSpec:
					name = s.Name.Name
				case *ast.ValueSpec:
					name = s.Names[0].Name
				}
			}
		}
		if doc != nil {
			from = doc.Pos()
		}
		if files.Position(from).Line <= line && line <= files.Position(to).Line {
			return name
		}
	}
	return ""
}

func receiver(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.IndexListExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	return "?"
}

// scanTest takes in what a test claims: the numbers in its string literals, if it calls Proves.
func (m *matrix) scanTest(pkg string, f *ast.FuncDecl) {
	if f.Recv != nil || f.Body == nil || !strings.HasPrefix(f.Name.Name, "Test") || !calls(f.Body, "Proves") {
		return
	}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		for _, number := range mqtttest.Requirement.FindAllString(lit.Value, -1) {
			if r := m.by[number]; r != nil && !slices.ContainsFunc(r.tests, func(p *proof) bool { return p.pkg == pkg && p.test == f.Name.Name }) {
				r.tests = append(r.tests, &proof{pkg: pkg, test: f.Name.Name})
			}
		}
		return true
	})
}

// calls reports whether a function calls another, under its own name or a short one that differs in its first letter.
func calls(body ast.Node, name string) bool {
	found := false
	ast.Inspect(body, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			switch f := c.Fun.(type) {
			case *ast.SelectorExpr:
				found = found || strings.EqualFold(f.Sel.Name, name)
			case *ast.Ident:
				found = found || strings.EqualFold(f.Name, name)
			}
		}
		return !found
	})
	return found
}
