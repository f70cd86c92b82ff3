# The user and the folder of the configuration; nothing is started and no traffic is captured.
systemd-sysusers corelane.conf
systemd-tmpfiles --create corelane.conf
systemctl daemon-reload >/dev/null 2>&1 || :
