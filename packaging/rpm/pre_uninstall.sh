# $1 is the number of versions that stay: at an upgrade the node goes on until it is restarted.
if [ "$1" -eq 0 ]; then
    systemctl disable --now corelane-capture.service corelane.service >/dev/null 2>&1 || :
fi
