# The dispatcher, and what all commands have in common.
ok "no command" runs 2
ok "no command: help on standard error" complains "usage: hwgq COMMAND"
ok "help" runs 0 --help
commands="train import describe eval classify inspect verify bench new round quantizer"
for command in $commands; do ok "help lists $command" prints "  $command "; done
for command in $commands; do
  ok "$command --help" runs 0 "$command" --help
  ok "$command --help" prints "usage: hwgq $command"
  ok "$command with an unknown option" runs 2 "$command" --no-such-option
done
ok "version" runs 0 --version
ok "version" grep -qxE 'hwgq [0-9]+\.[0-9]+\.[0-9]+' "$folder/out"
ok "unknown command" runs 2 fly
ok "unknown command is named" complains "'fly'"
