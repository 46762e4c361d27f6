"""From an untrusted log and quoted PCRs to proven facts: replay, bind, read off."""
