"""A mirror: answers as a hub does, fetches what it lacks once, and gives out only what it verified.

Theory of operation. One process serves HTTP (asyncio; bodies go by `sendfile`), one worker process runs the
transfer engine. They share nothing but the disk and two pipes: jobs one way, events the other.

    api/ → memory/   what a repo is: asked of the trusted source, believed for a while, kept in the catalog
         → body/     content by digest: verified files on disk, or
         → fill/     content on its way: one fill a digest, followed by any number of readers
                     the worker is the engine, in an interpreter of its own

Nothing that a request names becomes a path on disk; only digests do.
"""
