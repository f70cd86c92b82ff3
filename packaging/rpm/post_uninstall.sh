# Kept state goes with the last version; /etc/corelane, with its keys, is the operator's to remove.
systemctl daemon-reload >/dev/null 2>&1 || :
if [ "$1" -eq 0 ]; then
    rm -rf /var/cache/corelane
fi
