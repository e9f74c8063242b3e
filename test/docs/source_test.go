package docs_test

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// parse parses every Go file that is not a test.
func parse(t *testing.T) []*ast.File {
	t.Helper()
	var files []*ast.File
	set := token.NewFileSet()
	for name, text := range sourcesOf(t) {
		file, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// literals returns the string literals of a node.
func literals(node ast.Node) (list []string) {
	ast.Inspect(node, func(node ast.Node) bool {
		if lit, ok := node.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			text, _ := strconv.Unquote(lit.Value)
			list = append(list, text)
		}
		return true
	})
	return list
}

// pageOfBlock is where the words of a block are documented, by what its parser calls
// them in errors, without "option".
var pageOfBlock = map[string]string{
	"mtls": "global-option.md", "client": "client.md", "fetch": "fetch.md", "refusals": "refusals.md", "revocation": "revocation.md", "forwarded_certificate": "forwarded_certificate.md", "certificate_expiring": "certificate_expiring.md",
	"clients_from file": "clients_from.md", "clients_from storage": "clients_from.md", "clients_from http": "clients_from.md", "clients_from postgres": "clients_from.md",
	"issuer": "issuer.md", "resource": "issuer.md", "trust_issuer": "mtls_bearer.md", "forward_token": "mtls_auth.md", "forward_certificate": "mtls_auth.md",
}

// configurationWords returns the words that the parsers of Caddyfiles know, by
// page: the options of every call of parseBlock.
func configurationWords(t *testing.T) map[string][]string {
	t.Helper()
	words, tables := make(map[string][]string), optionTables(t)
	for _, file := range parse(t) {
		for _, decl := range file.Decls {
			function, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(function, func(node ast.Node) bool {
				call, ok := node.(*ast.CallExpr)
				if !ok {
					return true
				}
				if !isParseBlock(call) {
					return true
				}
				block := strings.TrimSuffix(lastOf(literals(call.Args[1])), " option")
				page, known := pageOfBlock[block]
				switch {
				case block == "subdirective":
					page = pageOfDirective(function)
				case !known:
					page = "none, for " + block
				}
				table := receiver(function) // of its method options
				if name, ok := call.Args[2].(*ast.CallExpr).Fun.(*ast.Ident); ok {
					table = name.Name
				}
				if tables[table] == nil {
					t.Errorf("the options of %s are not found", block)
					return true
				}
				for _, option := range tables[table].Elts {
					usage := lastOf(literals(option.(*ast.KeyValueExpr).Key))
					words[page] = append(words[page], strings.Fields(usage)[0])
				}
				return true
			})
		}
	}
	return words
}

// isParseBlock reports whether a call parses a block of a known kind.
func isParseBlock(call *ast.CallExpr) bool {
	switch function := call.Fun.(type) {
	case *ast.Ident:
		return function.Name == "parseBlock"
	case *ast.SelectorExpr:
		return function.Sel.Name == "ParseBlock" && len(literals(call.Args[1])) > 0
	}
	return false
}

// optionTables returns the options of each block, by the receiver of the method options
// that returns them, or by the name of the function.
func optionTables(t *testing.T) map[string]*ast.CompositeLit {
	t.Helper()
	tables := make(map[string]*ast.CompositeLit)
	for _, file := range parse(t) {
		for _, decl := range file.Decls {
			function, ok := decl.(*ast.FuncDecl)
			if !ok || !strings.HasSuffix(strings.ToLower(function.Name.Name), "options") || function.Body == nil {
				continue
			}
			last := function.Body.List[len(function.Body.List)-1]
			if result, ok := last.(*ast.ReturnStmt); ok {
				if table, ok := result.Results[0].(*ast.CompositeLit); ok {
					tables[cmp.Or(receiver(function), function.Name.Name)] = table
				}
			}
		}
	}
	return tables
}

// receiver returns the type of the receiver of a method, or "".
func receiver(function *ast.FuncDecl) (name string) {
	if function.Recv != nil {
		ast.Inspect(function.Recv, func(node ast.Node) bool {
			if ident, ok := node.(*ast.Ident); ok {
				name = ident.Name
			}
			return true
		})
	}
	return name
}

// pageOfDirective returns the page of the directive that a method parses.
func pageOfDirective(function *ast.FuncDecl) string {
	switch receiver := receiver(function); {
	case strings.HasPrefix(receiver, "Bearer"):
		return "mtls_bearer.md"
	case strings.HasPrefix(receiver, "Issuer"):
		return "mtls_issuer.md"
	}
	return "mtls_auth.md"
}

// metrics returns the metrics that the code declares, each as its name, its
// type and its labels.
func metrics(t *testing.T) (list []string) {
	t.Helper()
	constructors := map[string]string{"NewDesc": "gauge", "NewCounterVec": "counter", "NewHistogramVec": "histogram", "NewGaugeVec": "gauge"}
	for _, file := range parse(t) {
		ast.Inspect(file, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || constructors[selector.Sel.Name] == "" {
				return true
			}
			name, labels := "", []string(nil)
			for i, argument := range call.Args {
				literal, isLiteral := argument.(*ast.CompositeLit)
				switch {
				case i == 0 && !isLiteral:
					name = lastOf(literals(argument))
				case i == 0:
					for _, element := range literal.Elts {
						if pair := element.(*ast.KeyValueExpr); pair.Key.(*ast.Ident).Name == "Name" {
							name = lastOf(literals(pair.Value))
						}
					}
				case isLiteral:
					labels = literals(literal)
				}
			}
			kind := constructors[selector.Sel.Name]
			if strings.HasSuffix(name, "_total") {
				kind = "counter"
			}
			list = append(list, "caddy_mtls_"+strings.TrimPrefix(name, "caddy_mtls_")+" "+kind+" "+strings.Join(labels, ", "))
			return true
		})
	}
	return list
}

func lastOf(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1]
}

// configurationMembers returns the JSON members of the exported types of the
// root package, which are the configuration.
func configurationMembers(t *testing.T) (members []string) {
	t.Helper()
	tag := regexp.MustCompile(`json:"([a-z_]+)`)
	for _, file := range parse(t) {
		if file.Name.Name != "mtlsauth" {
			continue
		}
		ast.Inspect(file, func(node ast.Node) bool {
			declared, ok := node.(*ast.TypeSpec)
			if !ok || !declared.Name.IsExported() {
				return true
			}
			ast.Inspect(declared, func(node ast.Node) bool {
				if field, ok := node.(*ast.Field); ok && field.Tag != nil {
					if match := tag.FindStringSubmatch(field.Tag.Value); match != nil {
						members = append(members, match[1])
					}
				}
				return true
			})
			return false
		})
	}
	if len(members) < 20 {
		t.Errorf("found only the members %q", members)
	}
	return members
}

// logMessages returns the constant messages that the code logs.
func logMessages(t *testing.T) (messages []string) {
	t.Helper()
	level := regexp.MustCompile(`^(Debug|Info|Warn|Error)$`)
	for _, file := range parse(t) {
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.KeyValueExpr: // reporter.Refused{Message: …}
				if key, ok := node.Key.(*ast.Ident); ok && key.Name == "Message" {
					messages = append(messages, literals(node.Value)...)
				}
			case *ast.AssignStmt: // line.Message = …
				for i, left := range node.Lhs {
					if selector, ok := left.(*ast.SelectorExpr); ok && selector.Sel.Name == "Message" && i < len(node.Rhs) {
						messages = append(messages, literals(node.Rhs[i])...)
					}
				}
			case *ast.CallExpr:
				selector, ok := node.Fun.(*ast.SelectorExpr)
				switch {
				case !ok:
				case level.MatchString(selector.Sel.Name) && isLogger(selector.X) && len(node.Args) > 0:
					messages = append(messages, literals(node.Args[0])...)
				case selector.Sel.Name == "Check" && isLogger(selector.X) && len(node.Args) > 1:
					messages = append(messages, literals(node.Args[1])...)
				case selector.Sel.Name == "logToken" && len(node.Args) > 1:
					messages = append(messages, literals(node.Args[1])...)
				}
			}
			return true
		})
	}
	return messages
}

// isLogger reports whether an expression is called logger, as in
// realm.logger or config.Logger.
func isLogger(expression ast.Expr) bool {
	switch expression := expression.(type) {
	case *ast.Ident:
		return strings.EqualFold(expression.Name, "logger")
	case *ast.SelectorExpr:
		return strings.EqualFold(expression.Sel.Name, "logger")
	}
	return false
}
