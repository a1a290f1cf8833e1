#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs inside the new root, after its packages are configured and files/ is laid over it. From the recipe: $MODULES of the
# initrd, and $SHELL_TTY, the terminal of the lab's shell.
set -eu
version=$(ls /lib/modules)

echo lab >/etc/hostname
# A fixed id: an empty one would make each first boot run all presets anew.
echo 6c61626c61626c61626c61626c61626c >/etc/machine-id
: >/etc/fstab
sed -i 's/^root:[^:]*:/root::/' /etc/shadow
sed -i "s/@TTY@/$SHELL_TTY/" /etc/systemd/system/lab-shell.service
systemctl enable lab-shell.service

# Nobody logs in on a terminal, and nothing here is ever a day old: keep a server's services, and nothing that wakes up
# later in the middle of a measurement.
rm -f /etc/systemd/system/getty.target.wants/*
systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-tmpfiles-clean.timer systemd-logind.service systemd-pstore.service systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service systemd-binfmt.service getty-static.service proc-sys-fs-binfmt_misc.automount \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount systemd-remount-fs.service systemd-ask-password-wall.path \
    systemd-ask-password-console.path modprobe@configfs.service modprobe@drm.service modprobe@fuse.service \
    modprobe@efi_pstore.service modprobe@dm_mod.service modprobe@loop.service

# The smallest initrd that finds a virtio disk: the file systems and the rest are built in or loaded by udev later.
depmod "$version"
tree=/tmp/initrd
mkdir -p "$tree/bin" "$tree/dev" "$tree/proc" "$tree/root"
cp /bin/busybox "$tree/bin/"
# shellcheck disable=SC2086
modules=$(modprobe --set-version "$version" --show-depends --all $MODULES |
    sed -n 's/^insmod //p' | awk '!seen[$0]++')
{
    echo '#!/bin/busybox sh'
    echo '/bin/busybox mount -t devtmpfs dev /dev'
    for module in $modules; do
        cp "$module" "$tree/"
        echo "/bin/busybox insmod /${module##*/}"
    done
    echo 'until [ -b /dev/vda ]; do /bin/busybox usleep 10000; done'
    echo '/bin/busybox mount -t ext4 /dev/vda /root'
    echo '/bin/busybox umount /dev'
    echo 'exec /bin/busybox switch_root /root /sbin/init'
} >"$tree/init"
chmod 755 "$tree/init"
(cd "$tree" && find . | sort | busybox cpio -o -H newc 2>/dev/null) | gzip -1n >/boot/initrd
# where it lies and how it is called depends on the release and the architecture
mv "$(find /boot /usr/lib -name 'vmlinu[xz]*' -type f -size +1M)" /boot/vmlinuz
rm -rf "$tree" /boot/System.map-* /boot/config-* /var/lib/apt/lists/* /var/cache/apt/*
