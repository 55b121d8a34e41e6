# bash completion for hwgqd: the flags and their choices as `hwgqd --help` tells them.
_hwgqd() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} choices
  COMPREPLY=()
  case $previous in
  --config | --models | --keys-file | --tls-certificate | --tls-key | --port-file)
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
    compopt -o filenames 2>/dev/null
    return
    ;;
  --rights) choices="inference admin" ;;
  --cpu) choices="scalar avx2 avx512 neon" ;;
  --*) choices=$("${COMP_WORDS[0]}" --help 2>/dev/null | sed -n "s/^  $previous .*(\([a-z]*|[a-z|]*\))\$/\1/p" | tr '|' ' ') ;;
  esac
  [ -n "$choices" ] || choices=$("${COMP_WORDS[0]}" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]+' | sort -u)
  mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current")
}
complete -F _hwgqd hwgqd
