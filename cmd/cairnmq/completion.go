package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// The scripts ask the program itself: with --generate-bash-completion as the
// last word it prints what may come next.
var completionScripts = map[string]string{
	"bash": `# cairnmq completion for bash: source <(cairnmq completion bash)
_cairnmq_complete() {
    local cur=${COMP_WORDS[COMP_CWORD]}
    local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
    [[ $cur == -* ]] && words+=("$cur")
    local IFS=$'\n'
    COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _cairnmq_complete cairnmq
`,
	"zsh": `#compdef cairnmq
# cairnmq completion for zsh: source <(cairnmq completion zsh)
_cairnmq() {
    local cur=${words[CURRENT]}
    local -a ask found
    ask=(${words[1,CURRENT-1]})
    [[ $cur == -* ]] && ask+=("$cur")
    found=(${(f)"$(${ask[@]} --generate-bash-completion 2>/dev/null)"})
    if (( ${#found} )); then compadd -- "${found[@]}"; else _files; fi
}
compdef _cairnmq cairnmq
`,
	"powershell": `# cairnmq completion for PowerShell: cairnmq completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName cairnmq -ScriptBlock {
    param($word, $ast, $cursor)
    $ask = @($ast.CommandElements | ForEach-Object { $_.ToString() } | Select-Object -Skip 1)
    if ($word -ne '' -and -not $word.StartsWith('-')) { $ask = @($ask | Select-Object -SkipLast 1) }
    & cairnmq @ask --generate-bash-completion 2>$null | Where-Object { $_ -like "$word*" } |
        ForEach-Object { [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_) }
}
`,
}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a completion script for bash, zsh, fish or powershell",
		ArgsUsage: "SHELL",
		Action:    printCompletion,
	}
}

// values are what may follow a word of the command line.
func values(word string) []string {
	switch word {
	case "--format", "-format":
		return formats
	case "--kind", "-kind":
		return append(kindNames(), "all")
	case "--hash", "-hash":
		return hashes
	case "completion":
		return shells()
	case "--mqtt", "-mqtt":
		return []string{"3.1.1", "5"}
	case "--log-level", "-log-level":
		return []string{"debug", "info", "warn", "error"}
	}
	return nil
}

// complete prints what may come next behind the command.
func complete(c *cli.Command) cli.BashCompleteFunc {
	return func(ctx *cli.Context) {
		found := values(os.Args[len(os.Args)-2])
		if found == nil {
			cli.DefaultCompleteWithFlags(c)(ctx)
			return
		}
		fmt.Println(strings.Join(found, "\n"))
	}
}

func shells() []string { return append(slices.Sorted(maps.Keys(completionScripts)), "fish") }

func printCompletion(c *cli.Context) error {
	shell, err := oneArg(c, "")
	if err != nil {
		return err
	}
	script, ok := completionScripts[shell]
	switch {
	case shell == "fish":
		if script, err = c.App.ToFishCompletion(); err != nil {
			return err
		}
	case !ok:
		return usageErrorf("completion for %q: want one of %s%s", shell, strings.Join(shells(), ", "), nearest(shell, shells()))
	}
	_, err = fmt.Print(script)
	return err
}
