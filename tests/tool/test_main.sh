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
ok "help: exit status" runs 0 --help
for code in "0 done" "1 failed" "2 wrong usage" "130 training was interrupted"; do ok "help: exit status $code" prints "$code"; done
# A result that could not be written is none, however long it is.
unwritten() { # ARGUMENT...
  ! "$hwgq" "$@" >/dev/full 2>"$folder/err" && grep -qF "hwgq: cannot write the result to standard output: " "$folder/err"
}
ok "unwritten: a long result" unwritten describe resnet-50
ok "unwritten: a short result" unwritten describe lenet
ok "unwritten: a result at once" unwritten quantizer --bits 4
for how in --help --version "describe --help" "train --help" "import safetensors --help" describe "inspect $model" "inspect --json $model" "bench --runs 1 $model"; do
  # shellcheck disable=SC2086
  ok "unwritten: $how" unwritten $how
done
ok "unwritten: a failure's own code stays" test "$("$hwgq" describe no-such-network >/dev/full 2>&1; echo $?)" -eq 1
ok "unknown command" runs 2 fly
ok "unknown command is named" complains "'fly'"
