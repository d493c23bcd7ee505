#!/usr/bin/python3
"""client.py report|preview FILE: what known clients of AIX llvupdate make of its standard output.

The rules are those of the module llvupdate of IBM's Ansible collection ibm.power_aix (2.2.0), which reads lines and words
as Python does: ends of lines, white space and digits are Unicode's.

report    between the first line that has "LLU Report" in it and the next one that has "LLU Report End" in it, each line
          is a process: its first word is the PID, and its last word is SUCCESS or anything else.
          Prints "updated: PID...", "failed: PID...".
preview   "pid", a number, and then the next library that "needs to be updated" belong together.
          Prints "PID LIBRARY" lines.
"""
import re
import sys


def report(text):
    updated, failed = [], []
    lines = iter(text.splitlines())
    if not any("LLU Report" in line for line in lines):
        sys.exit("no report")
    for line in lines:
        if "LLU Report End" in line:
            break
        words = line.split()  # no words: the module fails, and so does this
        (updated if words[-1] == "SUCCESS" else failed).append(words[0])
    else:
        sys.exit("the report does not end")
    print("updated:", *updated)
    print("failed:", *failed)


def preview(text):
    for pid, library in re.findall(r"pid\s+(\d+).*?Library needs to be updated\s+(\S+)", text, re.DOTALL):
        print(pid, library)


with open(sys.argv[2], encoding="utf-8", newline="") as f:
    {"report": report, "preview": preview}[sys.argv[1]](f.read())
